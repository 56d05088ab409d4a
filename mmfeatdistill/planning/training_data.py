"""Whether the data that a config reads are there, before anything is built from it."""
import inspect
import os.path as osp
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS


def missing_data(cfg: Config) -> str:
    """What of the data of a config is not there.

    Args:
        cfg (Config): Of a training.

    Returns:
        str: The beginning of a sentence; empty where nothing is known to be missing.

    Examples:
        >>> missing_data(Config(dict(train_dataloader=dict(dataset=dict(type='A', data_root='data/nowhere')))))
        "train_dataloader reads 'data/nowhere', which is not there"
    """
    for key in ('train_dataloader', 'val_dataloader'):
        for dataset in _innermost((cfg.get(key) or {}).get('dataset', {})):
            root, annotations = (str(dataset.get(name) or '') for name in ('data_root', 'ann_file'))
            if '://' in root + annotations or _downloads(dataset, cfg):
                continue
            for path in (root, osp.join(root, annotations)):
                if path and not osp.exists(path):
                    return f'{key} reads {path!r}, which is not there'
    return ''


def _innermost(dataset: Any) -> Iterator[Mapping]:
    """The datasets inside wrappers and concatenations."""
    if not isinstance(dataset, Mapping):
        return
    inside = [dataset['dataset']] if 'dataset' in dataset else dataset.get('datasets', [])
    for inner in inside:
        yield from _innermost(inner)
    if not inside:
        yield dataset


def _downloads(dataset: Mapping, cfg: Config) -> bool:
    """Whether a dataset fetches what is missing, as that of CIFAR does."""
    name = dataset.get('type')
    cls = DATASETS.get(f'{cfg.get("default_scope")}.{name}' if isinstance(name, str) and '.' not in name else name) \
        if isinstance(name, str) and cfg.get('default_scope') else name
    return inspect.isclass(cls) and any('download' in inspect.signature(base.__init__).parameters
                                        for base in cls.__mro__ if '__init__' in vars(base))
