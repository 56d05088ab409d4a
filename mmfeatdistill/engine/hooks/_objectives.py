"""What hooks ask of the model that a runner trains."""
from collections.abc import Mapping
from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn

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
