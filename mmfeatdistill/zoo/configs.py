"""Configs, models and weights of the MM libraries' zoos, by name."""
import copy
import importlib.util
import os
import os.path as osp
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Optional, Union
from urllib.parse import unquote

from mmengine import registry as root
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmfeatdistill.errors import did_you_mean
from mmfeatdistill.zoo.packages import TASK_LIBRARIES, config_folder, stock_config


class ZooEntry(NamedTuple):
    """A trained model of a library's zoo.

    Attributes:
        name (str): Its name.
        config (str): Absolute path of its config.
        weights (str | list[str], optional): URL of its weights; several of a model of several parts.
        metrics (dict[str, float]): The first figure for each data set, such as ``{'box AP on COCO': 37.4}``.
    """

    name: str
    config: str
    weights: Union[str, list[str], None]
    metrics: Mapping[str, float]


def load_config(config: str) -> Config:
    """Loads a model's config by whatever name people have for it.

    Args:
        config (str): A file; a stock config (``'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'``); or
            the name of a zoo model (``'faster-rcnn_r50_fpn_1x_coco'``, optionally after ``'mmdet::'``).

    Returns:
        Config: With the file that it came from as ``filename``.

    Raises:
        FileNotFoundError: There is no such file, stock config or zoo model; names the nearest.
        ImportError: The library is not installed.
        TypeError: ``config`` is no string.
        ValueError: The file cannot be read as a config.
    """
    if not isinstance(config, str):
        raise TypeError("expected a config file, a stock config ('mmdet::<folder>/<file>.py') or the name of a zoo "
                        f'model, got {config!r:.100}.')
    if osp.isfile(config):
        return _read(config)
    library, separator, name = config.rpartition('::')
    if name.endswith('.py'):
        if separator:
            cfg = _read(stock_config(config))
            # The libraries' model files are meant to be inherited and do not state it.
            cfg.setdefault('default_scope', library)
            return cfg
        raise FileNotFoundError(f'there is no config file {config!r} (looked in {osp.abspath(config)!r}).')
    libraries = [library] if separator else _installed_libraries()
    entries = {entry.name: entry for library in libraries for entry in zoo_entries(library)}
    if name not in entries:
        raise FileNotFoundError(f'{config!r} is neither a file, nor a stock config such as '
                                "'mmdet::<folder>/<file>.py', nor a zoo model of "
                                f'{", ".join(libraries)}{did_you_mean(name, entries)}')
    return _read(entries[name].config)


def _read(file: str) -> Config:
    try:
        return Config.fromfile(file)
    except Exception as error:  # a config file is a program, and fails in any way
        raise ValueError(f'{file!r} cannot be read as a config: {type(error).__name__}: {error}') from error


def build_model(cfg: Config, data_preprocessor: Optional[nn.Module] = None) -> nn.Module:
    """Builds the model of a config in that config's own default scope.

    Args:
        cfg (Config): With ``model``, and perhaps ``default_scope`` and ``data_preprocessor`` next to it.
        data_preprocessor (nn.Module, optional): For a config that has none. Defaults to None.

    Returns:
        nn.Module: The model, with untrained weights.

    Raises:
        ValueError: The config has no model with a type.
    """
    model = cfg.get('model')
    if not isinstance(model, Mapping) or 'type' not in model:
        raise ValueError(f"expected a model config with a 'type', got {model!r}.")
    model = copy.deepcopy(dict(model))
    model.setdefault('_scope_', cfg.get('default_scope'))
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    try:
        built = build_in_scope(model)
    except TypeError as error:
        if "unexpected keyword argument 'data_preprocessor'" not in str(error):
            raise
        raise _incomplete(model) from error
    if data_preprocessor is not None and not has_own_preprocessor(cfg, built):
        if not isinstance(built, BaseModel):
            raise _incomplete(model)
        # Afterwards: wrappers of other libraries' networks, such as mmpretrain's of timm, take a dict only.
        built.data_preprocessor = data_preprocessor
    return built


def build_in_scope(model: Mapping) -> Any:
    """Builds a model; where a part is in another library than the one that is searched, the error says which.

    mmengine looks parts without a prefix up in the default scope; a prefix of the model's ``type`` is of that alone.

    Args:
        model (dict): Its config.

    Returns:
        Any: What it describes.

    Raises:
        KeyError: There is no such part.
    """
    try:
        return root.MODELS.build(model)
    except (KeyError, ImportError) as error:
        found = _UNKNOWN_PART.search(str(error))
        if found is None:
            raise
        name, searched = found.groups()
        homes = [library for library in TASK_LIBRARIES
                 if library != searched and importlib.util.find_spec(library) is not None
                 and root.MODELS.get(f'{library}.{name}') is not None]
        if not homes:
            raise
        own = str(model['type']).partition('.')[0]
        home = own if own in homes else homes[0]
        raise KeyError(f"{name!r} is looked up in {searched}, which has none; {' and '.join(homes)} "
                       f"{'has' if len(homes) == 1 else 'have'} one. Parts without a prefix belong to the default "
                       f"scope, whatever prefix the model's type has: give the model _scope_={home!r}, next to "
                       f"type={model['type']!r}, or write type='{home}.{name}'.") from error


_UNKNOWN_PART = re.compile(r'(\w+) is not in the (\w+)::model registry')
"""How mmengine says that a type is unknown."""


def has_own_preprocessor(cfg: Config, model: nn.Module) -> bool:
    """Whether a network has a data preprocessor of its own, from its config or from the library that it comes from.

    Args:
        cfg (Config): Its config.
        model (nn.Module): The network.

    Returns:
        bool: Otherwise it takes what the student does.
    """
    return ('data_preprocessor' in cfg or 'data_preprocessor' in cfg.model
            or getattr(model, 'brings_preprocessor', False))


def _incomplete(model: Mapping) -> TypeError:
    return TypeError('expected the config of a complete model, such as a detector with its backbone and heads, got '
                     f'that of {model["type"]!r}.')


def build_runner(cfg: Config) -> Runner:
    """A runner of the class that the config names as ``runner_type``, or mmengine's."""
    return root.RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def stock_name(filename: str) -> Optional[str]:
    """The name by which a config file of an installed MM library is known.

    Args:
        filename (str): Path of the config, as in ``Config.filename``.

    Returns:
        str: Such as ``'mmdet::yolox/yolox_s_8xb8-300e_coco.py'``; None for any other file.

    Examples:
        >>> from mmfeatdistill import stock_config
        >>> stock_name(stock_config('mmpretrain::resnet/resnet18_8xb32_in1k.py'))
        'mmpretrain::resnet/resnet18_8xb32_in1k.py'
    """
    # Libraries beyond the three have configs and metafiles too, such as mmrotate.
    package, _, path = osp.abspath(filename).rpartition(f'{os.sep}{osp.join(".mim", "configs")}{os.sep}')
    library = osp.basename(package)
    if not library or importlib.util.find_spec(library) is None:
        return None
    return f'{library}::{path.replace(os.sep, "/")}'


def zoo_weights(filename: str, name: str = '') -> str:
    """Where the zoo weights of a stock config are.

    Several zoo models may share a config and differ in their weights (pre-training, converted weights).
    A config file then stands for the model of its own name.

    Args:
        filename (str): Path of the config, as in ``Config.filename``.
        name (str): By what name it was asked for: a zoo model's own name decides between models that
            share a config. Defaults to ``''``.

    Returns:
        str: URL of the weights that the library's own metafile names.

    Raises:
        ValueError: It is no stock config, or its metafile names no weights, or several.
    """
    library = (stock_name(filename) or '').partition('::')[0]
    if library:
        if not osp.isfile(_metafile(library)):
            raise ValueError(f"{library} was installed without a metafile ({_metafile(library)}), so 'zoo' finds no "
                             f'weights for {osp.basename(filename)!r}; give a path or a URL.')
        return _weights_in(library, osp.abspath(filename), name.rpartition('::')[2])
    raise ValueError(f"'zoo' means the weights that a stock config's metafile names, but {filename!r} is no "
                     'config of an installed MM library; give a path or a URL.')


def _weights_in(library: str, filename: str, name: str) -> str:
    file = osp.basename(filename)
    entries = list(zoo_entries(library))
    fitting = [entry for entry in entries if entry.config == filename]
    for wanted in (name, osp.splitext(file)[0]):
        if any(entry.name == wanted for entry in fitting):
            fitting = [entry for entry in fitting if entry.name == wanted]
            break
    # Trackers name several files, one for each of their parts.
    found = {entry.weights: entry.name for entry in fitting if isinstance(entry.weights, str)}
    if not found:
        with_weights = {osp.basename(entry.config) for entry in entries if entry.weights}
        raise ValueError(f'the zoo of {library} has no weights for {file!r}{did_you_mean(file, with_weights)} Its '
                         f'metafiles name {len(with_weights)} configs with weights; give one of these, a path or a '
                         'URL.')
    if len(found) > 1:
        listed = ', '.join(f'{model!r} ({url})' for url, model in found.items())
        raise ValueError(f'the zoo of {library} has several weights for {file!r}: {listed}. Give the name of one '
                         "model as 'config', or its URL as 'checkpoint'.")
    return next(iter(found))


def zoo_entries(library: str) -> Iterator[ZooEntry]:
    """All trained models that a library's metafiles name.

    Args:
        library (str): Import name, such as ``'mmdet'``.

    Yields:
        ZooEntry: What they say.

    Raises:
        ImportError: The library is not installed.
    """
    root = osp.dirname(config_folder(library))
    for metafile in load(_metafile(library))['Import']:
        for model in load(osp.join(root, metafile)).get('Models') or []:
            if 'Config' in model:
                yield ZooEntry(model['Name'], _config_file(root, model['Config']), model.get('Weights'),
                               dict(_metrics(model.get('Results') or [])))


def _config_file(root: str, written: str) -> str:
    """Where a config is that a metafile names; some write paths as in a URL, as mmdet those in ``gn+ws``."""
    file = osp.join(root, written)
    return file if osp.isfile(file) else osp.join(root, unquote(written))


def _metrics(results: Union[Mapping, list]) -> Iterator[tuple[str, float]]:
    """The first figure of each result: metafiles name what counts most first."""
    for result in [results] if isinstance(results, Mapping) else results:
        name, value = next(iter((result.get('Metrics') or {}).items()), ('', None))
        if isinstance(value, (int, float)):
            yield f'{name} on {result.get("Dataset")}', value


def _metafile(library: str) -> str:
    """The index of a library's metafiles."""
    return osp.join(osp.dirname(config_folder(library)), 'model-index.yml')


def _installed_libraries() -> list[str]:
    return [library for library in TASK_LIBRARIES if importlib.util.find_spec(library) is not None]
