"""What a distillation config says: its student, and its teachers with their options."""
import copy
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

from mmfeatdistill.errors import ConfigError


def is_distillation(cfg: Config) -> bool:
    """Whether the model of a config is a ``FeatureDistiller``, whether or not the config is complete.

    Examples:
        >>> is_distillation(Config(dict(model=dict(type='mmfeatdistill.FeatureDistiller'))))
        True
        >>> is_distillation(Config(dict(model=dict(type='mmdet.RetinaNet'))))
        False
    """
    kind = _model_type(cfg)
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2] == 'FeatureDistiller'


def check_distillation(cfg: Config) -> None:
    """Refuses what is no distillation config.

    Raises:
        ConfigError: Its model is no ``FeatureDistiller``, or one without a student.
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
    """
    several = isinstance(cfg, Sequence) and not isinstance(cfg, str)
    entries = {f'model.teacher[{i}]': entry for i, entry in enumerate(cfg)} if several else {'model.teacher': cfg}
    return {key: dict(config=entry) if isinstance(entry, str) else entry for key, entry in entries.items()}


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
