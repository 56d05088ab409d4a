"""Training steps of a method, in one process of two on its half of a batch or alone on any part of it."""
import random
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from mmfeatdistill.distillers import FeatureDistiller
from mmfeatdistill.step_costs.random_batch import random_batch
from mmfeatdistill.taps.isolation import random_state_kept
from tests.helpers.runs import CONFIGS, teachers_of

IMAGES, SIDE = 4, 64


class Step(NamedTuple):
    """Losses by name, and the gradient of each parameter that has one."""

    losses: dict[str, Tensor]
    gradients: dict[str, Tensor]


class Steps(NamedTuple):
    """Three steps: with all objectives, with the last one switched off, and with all again."""

    both: Step
    off: Step
    again: Step


def build(path: str) -> tuple[FeatureDistiller, dict]:
    """The model of a config below configs/, and a preprocessed batch for it."""
    cfg = Config.fromfile(CONFIGS / path)
    for teacher in teachers_of(cfg):
        teacher.checkpoint = None
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    options = {name: value for name, value in cfg.model.items() if name != 'type'}
    model = FeatureDistiller(**options, data_preprocessor=cfg.get('data_preprocessor'))
    model.init_weights()
    model.train()
    for module in model.modules():  # statistics of half a batch are others than those of all of it
        if isinstance(module, (_BatchNorm, _DropoutNd)):
            module.eval()
    # Padding is ignored by the losses of segmenters, which mmseg 1.2 cannot do where classes have weights.
    height, width = model.student.data_preprocessor.size if cfg.default_scope == 'mmseg' else (SIDE, SIDE)
    data = model.data_preprocessor(random_batch(cfg, IMAGES, height, width), True)
    # Each process looks at all images, as one alone would; how they are shared is another test. They are mirrored: an
    # image that is the median itself would lie on the hyperplane, above or below by a rounding error.
    asking = model.images_wanted()
    if asking:
        model.update_statistics(data['inputs'].flip(3), data['data_samples'], asking)
    model.finish_statistics(asking)
    return model, data


def part(data: dict, start: int, end: int) -> dict:
    return {name: value[start:end] for name, value in data.items()}


def of_a_rank(path: str, rank: int) -> dict:
    """The steps of one of two processes."""
    model, data = build(path)
    if rank:  # DDP gives it the weights of the first; it must not matter what it has
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
    wrapped = MMDistributedDataParallel(model, broadcast_buffers=False)  # as mmengine's runner wraps
    half = IMAGES // 2
    found = steps(wrapped, model, part(data, rank * half, rank * half + half), seed=rank)
    return dict(steps=found, parameters=[name for name, _ in model.named_parameters()])


def steps(wrapped: nn.Module, model: FeatureDistiller, data: dict, seed: int) -> Steps:
    """The three steps; proposals and masks are drawn from the seed."""
    last = list(model.objectives.values())[-1]
    hub = MessageHub.get_current_instance()
    found = []
    with random_state_kept():
        for iteration, weight in enumerate((1.0, 0.0, 1.0)):
            hub.update_info('iter', iteration)
            last.weight = weight
            found.append(_step(wrapped, model, data, seed))
    hub.pop_info('iter')
    return Steps(*found)


def _step(wrapped: nn.Module, model: FeatureDistiller, data: dict, seed: int) -> Step:
    torch.manual_seed(seed)
    random.seed()  # what is to be equal in all processes must not come from here
    model.zero_grad()
    total, losses = model.parse_losses(wrapped(**data, mode='loss'))
    total.backward()
    return Step({name: value.detach() for name, value in losses.items() if 'loss' in name},
                {name: parameter.grad.clone() for name, parameter in model.named_parameters()
                 if parameter.grad is not None})
