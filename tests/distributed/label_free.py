"""Training without labels, in one of two processes."""
import torch
from mmengine.model import MMDistributedDataParallel
from torch import Tensor

from mmfeatdistill import LabelFreeDistiller
from tests.helpers.models import detector, images, match, teacher


def of_a_rank(rank: int) -> list[dict[str, Tensor]]:
    """The gradients of three steps of a detector whose heads do not run; in the second, one objective is off."""
    torch.manual_seed(0)
    model = LabelFreeDistiller(detector(), teacher(detector()), dict(neck=match('neck'), stages=match('backbone')))
    model.init_weights()
    wrapped = MMDistributedDataParallel(model, broadcast_buffers=False)
    found = []
    for weight in (1.0, 0.0, 1.0):
        model.objectives['neck'].weight = weight
        model.zero_grad()
        torch.manual_seed(rank)
        data = model.data_preprocessor(dict(inputs=images((64, 64), (64, 64))), training=True)
        model.parse_losses(wrapped(**data, mode='loss'))[0].backward()
        found.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()
                      if parameter.grad is not None})
    return found
