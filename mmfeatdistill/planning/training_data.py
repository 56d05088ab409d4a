"""Whether the data that a config reads are there, before anything is built from it."""
import inspect
import os.path as osp
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from mmengine.config import Config
from mmengine.registry import DATASETS


def missing_data(cfg: Config) -> str:
    """What of the data of a config is not there.

    Args:
        cfg (Config): Of a training.

    Returns:
        str: The beginning of a sentence; empty where nothing is known to be missing. What a dataset downloads itself
        is none of it; see :func:`failed_download`.

    Examples:
        >>> missing_data(Config(dict(train_dataloader=dict(dataset=dict(type='A', data_root='data/nowhere')))))
        "train_dataloader reads 'data/nowhere', which is not there"
    """
    for key, dataset in _datasets(cfg):
        root, annotations = (str(dataset.get(name) or '') for name in ('data_root', 'ann_file'))
        if '://' in root + annotations or _downloading_class(dataset, cfg) is not None:
            continue
        for path in (root, osp.join(root, annotations)):
            if path and not osp.exists(path):
                return f'{key} reads {path!r}, which is not there'
    return ''


def failed_download(cfg: Config) -> str:
    """What of the data of a config is not there and cannot be downloaded, by datasets that do so themselves.

    Args:
        cfg (Config): Of a training. What can be downloaded is there afterwards.

    Returns:
        str: The beginning of a sentence; empty where nothing of that kind is known to be missing.
    """
    for key, dataset in _datasets(cfg):
        cls = _downloading_class(dataset, cfg)
        if cls is None:
            continue
        options = {name: value for name, value in dataset.items() if name not in ('type', '_scope_')}
        try:
            built: Any = cls(**options | dict(pipeline=[], lazy_init=True))
            is_there = _is_there(built)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, the training that builds it says it
            continue
        if is_there:
            continue
        try:
            built.full_init()
        except Exception as error:  # noqa: BLE001 - without internet, from a full disk, of another checksum
            return (f'{key} reads {cls.__name__} in {_folder(built)!r}, where its files are not, and they could not be '
                    f'downloaded ({type(error).__name__}: {error})')
    return ''


def _datasets(cfg: Config) -> Iterator[tuple[str, Mapping]]:
    """What the data loaders read, each with the key of its loader."""
    for key in ('train_dataloader', 'val_dataloader'):
        for dataset in _innermost((cfg.get(key) or {}).get('dataset', {})):
            yield key, dataset


def _innermost(dataset: Any) -> Iterator[Mapping]:
    """The datasets inside wrappers and concatenations."""
    if not isinstance(dataset, Mapping):
        return
    inside = [dataset['dataset']] if 'dataset' in dataset else dataset.get('datasets', [])
    for inner in inside:
        yield from _innermost(inner)
    if not inside:
        yield dataset


def _downloading_class(dataset: Mapping, cfg: Config) -> Optional[type]:
    """The class of a dataset that fetches what is missing, as that of CIFAR does; None for any other."""
    name = dataset.get('type')
    cls = DATASETS.get(f'{cfg.get("default_scope")}.{name}' if isinstance(name, str) and '.' not in name else name) \
        if isinstance(name, str) and cfg.get('default_scope') else name
    downloads = inspect.isclass(cls) and any('download' in inspect.signature(vars(base)['__init__']).parameters
                                             for base in cls.__mro__ if inspect.isfunction(vars(base).get('__init__')))
    return cls if downloads else None


def _is_there(dataset: Any) -> bool:
    """Whether a dataset finds all its files, by the check after which it would download; nothing is fetched here."""
    check = getattr(dataset, '_check_integrity', None) or getattr(dataset, '_check_exists', None)
    return check is None or check()


def _folder(dataset: Any) -> str:
    return next((place for place in (getattr(dataset, 'data_prefix', None) or {}).values() if place),
                getattr(dataset, 'data_root', ''))
