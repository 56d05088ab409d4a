"""From a distillation config to the student and the objectives."""
import copy
from collections.abc import Mapping
from typing import Any, Union

from mmengine import registry as root
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from torch import nn

from mmfeatdistill.errors import ConfigError, config_key
from mmfeatdistill.objectives import Objective
from mmfeatdistill.registry import SCOPE, build
from mmfeatdistill.zoo.configs import build_in_scope
from mmfeatdistill.zoo.packages import TASK_LIBRARIES

ADDED = 'distiller'
"""The child module, and so the prefix of every name, that distillation adds to a student."""


_REFUSED_BATCHES = dict(MultiBranchDataPreprocessor='several branches of a batch, labeled and unlabeled')
"""By the name of a data preprocessor, what is no batch of labeled images."""


def build_student(student: Union[dict, BaseModel, None],
                  data_preprocessor: Union[dict, nn.Module, None]) -> BaseModel:
    """Builds a student, or takes a built one.

    Args:
        student (dict | BaseModel): Any MM model config, untouched.
        data_preprocessor (dict, optional): Used where the student has none of its own.

    Returns:
        BaseModel: The student.

    Raises:
        ConfigError: It is no model of the MM libraries, or one that has a training step of its own.
    """
    if isinstance(student, Mapping):
        if 'type' not in student:
            raise ConfigError(f"model.student: expected a model config with a 'type', got the keys "
                              f'{sorted(student)}.')
        student = copy.deepcopy(dict(student))
        if data_preprocessor is not None:
            student.setdefault('data_preprocessor', copy.deepcopy(data_preprocessor))
        student.setdefault('_scope_', _library_of(student['type']))
        with config_key('model.student'):
            student = build_in_scope(student)
    if not isinstance(student, BaseModel):
        raise ConfigError(f'model.student: expected a config of an mmengine BaseModel, got {student!r:.200}.')
    if 'teachers' in vars(student) and ADDED in student._modules:
        raise ConfigError(f'model.student: {type(student).__name__} is itself a distiller, as where the config of a '
                          'distillation is inherited: take its student, as in student={{_base_.model.student}}, or '
                          'change its teacher and objectives in place.')
    if ADDED in student._modules:
        raise ConfigError(f'model.student: {type(student).__name__} has a child named {ADDED!r} already.')
    preprocessor = type(student.data_preprocessor).__name__
    if (reason := _REFUSED_BATCHES.get(preprocessor)) or _is_self_supervised(student):
        raise ConfigError(f'model.student: {type(student).__name__} trains on '
                          f'{reason or "views or masked images that it makes itself"}, of which a teacher has no '
                          'counterpart; distill the network that it trains, such as its detector or backbone.')
    if type(student).train_step is not BaseModel.train_step:
        raise ConfigError(f'model.student: {type(student).__name__} has a training step of its own, which '
                          'distillation would have to replace; only models with the usual step can be students.')
    return student


def check_overrides(student: BaseModel, distiller: type) -> None:
    """Refuses a student with methods of its own that nobody would call, as the distiller stands in its place.

    Args:
        student (BaseModel): The student.
        distiller (type): What stands in its place; what it defines itself, it passes on.

    Raises:
        ConfigError: Names the method.
    """
    for name in dir(BaseModel):
        usual = getattr(BaseModel, name)
        if (callable(usual) and not name.startswith('__') and name not in _COSMETIC
                and getattr(type(student), name) is not usual and getattr(distiller, name) is usual):
            raise ConfigError(f'model.student: {type(student).__name__} has a method {name}() of its own, which nobody '
                              'would call, as trainings call that of the distiller; move what it does to forward(), '
                              'loss() or parse_losses().')


_COSMETIC = ('extra_repr', '_get_name')
"""Methods that change nothing but what is printed."""


def _library_of(name: Any) -> Union[str, None]:
    """The scope of a student that has none, as mmengine.hub.get_model builds it: this project has no students."""
    scope = DefaultScope.get_current_instance()
    if scope is None or scope.scope_name != SCOPE or not isinstance(name, str):
        return None
    return next((library for library in TASK_LIBRARIES if root.MODELS.get(f'{library}.{name}') is not None), None)


def build_objectives(objectives: Any) -> dict[str, Objective]:
    """Builds the objectives of a config.

    Args:
        objectives (dict[str, dict | None]): Named objectives; None removes one that was inherited.

    Returns:
        dict[str, Objective]: At least one.

    Raises:
        ConfigError: Names the config key, what was given and what would do.
    """
    if not isinstance(objectives, Mapping):
        raise ConfigError('model.objectives: expected a dict of named objectives, as in '
                          f"dict(fpn=dict(type='FeatureMatch', ...)), got {objectives!r}.")
    if 'type' in objectives:
        raise ConfigError('model.objectives: each objective needs a name of its own, as in '
                          f"dict(fpn=dict(type={objectives['type']!r}, ...)).")
    wanted = {name: cfg for name, cfg in objectives.items() if cfg is not None and name != '_scope_'}
    if not wanted:
        raise ConfigError('model.objectives: is empty; give at least one, such as '
                          "fpn=dict(type='FeatureMatch', taps=['neck'], loss=dict(type='SquaredError')).")
    built = {}
    for name, cfg in wanted.items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f'model.objectives: each objective needs a name, such as fpn=dict(...), got {name!r}.')
        if '.' in name:
            raise ConfigError(f'model.objectives.{name}: a dot ends the name of an objective in logs; take another, '
                              f"such as {name.replace('.', '_')!r}.")
        built[name] = build(cfg, f'model.objectives.{name}')
        if not isinstance(built[name], Objective):
            raise ConfigError(f'model.objectives.{name}.type: {cfg["type"]!r} is no objective; losses and '
                              "connectors go into one, as in dict(type='FeatureMatch', taps=[...], loss=...).")
    return built


def _is_self_supervised(student: BaseModel) -> bool:
    return any(cls.__name__ == 'BaseSelfSupervisor' for cls in type(student).__mro__)
