"""What hooks ask of the model that a runner trains."""
from collections.abc import Mapping
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop
from torch import nn

from mmfeatdistill.errors import ConfigError, did_you_mean
from mmfeatdistill.objectives import Objective
from mmfeatdistill.teacher.teacher import Teacher


def unwrap(model: nn.Module) -> Any:
    """The model inside a wrapper such as DDP; any other as it is."""
    return model.module if is_model_wrapper(model) else model


def teachers_of(model: nn.Module) -> list[Teacher]:
    """The teachers of a runner's model, through DDP; none for a student alone."""
    return getattr(unwrap(model), 'teachers', [])


def objectives_of(model: nn.Module) -> Mapping[str, Objective]:
    """The objectives of a runner's model by name, through DDP; none for a student alone."""
    return getattr(unwrap(model), 'objectives', {})


def find_objective(runner: Any, name: str, by_epoch: bool, key: str) -> Objective:
    """The objective that a hook is for.

    Args:
        runner (Runner): The runner.
        name (str): Of the objective.
        by_epoch (bool): Whether the hook counts epochs.
        key (str): Of the hook, for messages.

    Returns:
        Objective: The one of this name.

    Raises:
        ConfigError: There is no such objective, or there are no epochs to count.
    """
    objectives = objectives_of(runner.model)
    if name not in objectives:
        known = list(objectives)
        raise ConfigError(f'{key}.objective: there is no {name!r} in model.objectives, which has {known}'
                          f'{did_you_mean(name, known)}')
    if by_epoch and isinstance(runner.train_loop, IterBasedTrainLoop):
        raise ConfigError(f'{key}.by_epoch: an iteration-based training counts no epochs; give the steps in '
                          'iterations, with by_epoch=False.')
    return objectives[name]
