"""What a distillation config says: its student, and its teachers with their options."""
import copy
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.registry import SCOPE, TEACHER_SOURCES

_DISTILLERS = ('FeatureDistiller', 'LabelFreeDistiller')


def is_distillation(cfg: Config) -> bool:
    """Whether the model of a config is a distiller, with labels or without, whether or not the config is complete.

    Examples:
        >>> is_distillation(Config(dict(model=dict(type='mmfeatdistill.FeatureDistiller'))))
        True
        >>> is_distillation(Config(dict(model=dict(type='mmdet.RetinaNet'))))
        False
    """
    kind = _model_type(cfg)
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2] in _DISTILLERS


def check_distillation(cfg: Config) -> None:
    """Refuses what is no distillation config.

    Raises:
        ConfigError: Its model is no distiller, or one without a student.
    """
    file = cfg.filename or 'the config'
    if not is_distillation(cfg):
        raise ConfigError(f"model: {file} is no distillation config: expected type='mmfeatdistill.FeatureDistiller', "
                          f'got {_model_type(cfg)!r:.100}.')
    if not isinstance(cfg.model.get('student'), Mapping):
        raise ConfigError(f'model.student: expected a model config, got {cfg.model.get("student")!r:.100} in {file}.')


def student_config(cfg: Config) -> Config:
    """The config of the student alone.

    Args:
        cfg (Config): A distillation config.

    Returns:
        Config: The same, with the student as its model; nothing of the distiller or teacher is built.

    Raises:
        ConfigError: It is no distillation config.
    """
    check_distillation(cfg)
    cfg = cfg.copy()
    cfg.model = cfg.model.student
    return cfg


def network_config(cfg: Config) -> Config:
    """The config of a network that is meant by any config: a distillation stands for its student.

    Args:
        cfg (Config): Any.

    Returns:
        Config: The same, or with the student as its model.

    Raises:
        ConfigError: It is a distillation config without a student.

    Examples:
        >>> network_config(Config(dict(model=dict(type='FeatureDistiller', student=dict(type='RetinaNet'))))).model.type
        'RetinaNet'
    """
    return student_config(cfg) if is_distillation(cfg) else cfg


def _model_type(cfg: Config) -> Any:
    model = cfg.get('model')
    return model.get('type') if isinstance(model, Mapping) else model


def teacher_options(cfg: Any) -> dict[str, Any]:
    """The teachers of a distiller's config, each as a dict, by the config key of each.

    Args:
        cfg (str | dict | list): The config's ``model.teacher``.

    Returns:
        dict[str, dict]: The arguments of :class:`Teacher`; the dicts of the config itself, where it has dicts.

    Examples:
        >>> teacher_options(['a.py', dict(config='b.py', checkpoint=None)])
        {'model.teacher[0]': {'config': 'a.py'}, 'model.teacher[1]': {'config': 'b.py', 'checkpoint': None}}
        >>> teacher_options(dict(timm='resnet18', checkpoint=None))['model.teacher']['model']
        {'type': 'mmfeatdistill.TimmNetwork', 'name': 'resnet18', 'arguments': {}, 'pretrained': False}
    """
    several = isinstance(cfg, Sequence) and not isinstance(cfg, str)
    entries = {f'model.teacher[{i}]': entry for i, entry in enumerate(cfg)} if several else {'model.teacher': cfg}
    return {key: dict(config=entry) if isinstance(entry, str) else _of_library(entry, key)
            for key, entry in entries.items()}


def teacher_sources() -> list[str]:
    """The keys by which a teacher may come from elsewhere than the MM libraries, such as ``'timm'``."""
    TEACHER_SOURCES.import_from_location()
    return sorted(TEACHER_SOURCES.module_dict)


def _of_library(entry: Any, key: str) -> Any:
    """A teacher of another library as the MM model that wears it; anything else as it is."""
    named = [source for source in teacher_sources() if source in entry] if isinstance(entry, Mapping) else []
    if not named:
        return entry
    ways = [*named, *(name for name in ('config', 'model') if entry.get(name) is not None)]
    if len(ways) > 1:
        raise ConfigError(f'{key}: give one of {" and ".join(map(repr, ways))}.')
    [source] = named
    options = {name: value for name, value in entry.items() if name not in (source, 'arguments')}
    name, arguments = entry[source], entry.get('arguments', {})
    if not isinstance(name, str) or not name:
        raise ConfigError(f'{key}.{source}: expected the name of a network, got {name!r:.100}.')
    if not isinstance(arguments, Mapping):
        raise ConfigError(f'{key}.arguments: expected a dict of arguments for {name!r}, got {arguments!r:.100}.')
    is_pretrained = options.get('checkpoint') == 'pretrained'
    if is_pretrained:
        options['checkpoint'] = 'init_cfg'  # those that the network has when it is built
    kind = f'{SCOPE}.{TEACHER_SOURCES.module_dict[source].__name__}'
    return dict(options, model=dict(type=kind, name=name, arguments=dict(arguments), pretrained=is_pretrained))


def with_teacher_options(cfg: Any, **changes: Any) -> Any:
    """The teachers of a distiller's config, each with some options changed.

    Args:
        cfg (str | dict | list): The config's ``model.teacher``, which is left as it is.
        **changes: Arguments of :class:`Teacher`.

    Returns:
        dict | list[dict]: A list if it was one; what is no teacher stays as it is, to be refused.

    Examples:
        >>> with_teacher_options('a.py', checkpoint=None), with_teacher_options(['a.py'], strict=False)
        ({'config': 'a.py', 'checkpoint': None}, [{'config': 'a.py', 'strict': False}])
    """
    entries = teacher_options(cfg)
    changed = [dict(options, **changes) if isinstance(options, Mapping) else options for options in entries.values()]
    return changed[0] if 'model.teacher' in entries else changed


def buildable(cfg: Config) -> ConfigDict:
    """The config of a distiller as a runner builds it, whose student and teachers can also be built by themselves.

    Args:
        cfg (Config): A distillation config, which is left as it is; its ``default_scope`` becomes the current one.

    Returns:
        ConfigDict: A copy of its ``model``, with the data preprocessor in the student too, and the teachers as a list
        of dicts.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    model = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
        model.student.setdefault('data_preprocessor', cfg.data_preprocessor)
    model.teacher = list(teacher_options(model.teacher).values())
    return model
