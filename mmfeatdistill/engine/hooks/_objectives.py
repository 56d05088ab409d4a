"""What hooks ask of the model that a runner trains."""
from collections.abc import Mapping

from mmengine.model import is_model_wrapper
from torch import nn

from mmfeatdistill.objectives import Objective


def objectives_of(model: nn.Module) -> Mapping[str, Objective]:
    """The objectives of a runner's model by name, through DDP; none for a student alone."""
    return getattr(model.module if is_model_wrapper(model) else model, 'objectives', {})
