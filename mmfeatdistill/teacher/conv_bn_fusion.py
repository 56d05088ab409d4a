"""Folding batch normalizations into the convolutions before them."""
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from mmcv.cnn.bricks.wrappers import Conv2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mmfeatdistill.taps.tap import Place
from mmfeatdistill.taps.tracing import Call, tensors_in, trace


class ConvNorm(NamedTuple):
    """A convolution and the batch normalization that alone reads its output: the names of both."""

    conv: str
    norm: str


def fusible(model: nn.Module, run: Callable[[], Any], read: Collection[Place] = ()) -> list[ConvNorm]:
    """Finds the normalizations that can be fused, from what runs, not from how modules are nested.

    Args:
        model (nn.Module): The network, in eval mode.
        run: Runs it without gradient. It may fail on the way: what ran before is looked at.
        read (Collection[Place]): Where tensors are picked up, which stay what they were.

    Returns:
        list[ConvNorm]: Pairs whose modules run once in a pass, have no weights in common with others, and between
        which nothing else reads.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()).eval()
        >>> fusible(model, lambda: model(torch.zeros(1, 3, 2, 2)))
        [ConvNorm(conv='0', norm='1')]
    """
    calls = trace(model, run)
    pairs = list(_pairs(calls, read))
    if not _are_alone(model, run, calls, pairs):
        pairs = [pair for pair in pairs if _are_alone(model, run, calls, [pair])]
    return pairs


def fuse(model: nn.Module, pairs: Sequence[ConvNorm]) -> None:
    r"""Folds normalizations into convolutions, in place; each becomes an ``nn.Identity``.

    .. math:: W' = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}} W, \qquad
        b' = \beta + \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}} (b - \mu)

    Equal up to rounding for a network in eval mode.

    Args:
        model (nn.Module): The network.
        pairs (Sequence[ConvNorm]): As :func:`fusible` finds them.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
        >>> fuse(model, [ConvNorm('0', '1')])
        >>> model[1]
        Identity()
    """
    for pair in pairs:
        conv, norm = model.get_submodule(pair.conv), model.get_submodule(pair.norm)
        conv.weight, conv.bias = (nn.Parameter(parameter.detach(), requires_grad=False) for parameter in
                                  fuse_conv_bn_weights(conv.weight, conv.bias, norm.running_mean, norm.running_var,
                                                       norm.eps, norm.weight, norm.bias))
        parent, _, name = pair.norm.rpartition('.')
        setattr(model.get_submodule(parent), name, nn.Identity())


def _pairs(calls: Sequence[Call], read: Collection[Place]) -> Iterator[ConvNorm]:
    runs = Counter(id(call.module) for call in calls)
    tapped = [tensor for call in calls for place in read if place.path == call.path
              for tensor in (call.inputs if place.is_input else call.outputs)]
    convs = [call for call in calls if is_plain_conv(call.module) and runs[id(call.module)] == 1
             and not _has(tapped, call.outputs[0])]
    norms = [call for call in calls if _is_fixed_norm(call.module)]
    for conv in convs:
        readers = [norm for norm in norms if _has(norm.inputs, conv.outputs[0])]
        if len(readers) == 1 and runs[id(readers[0].module)] == 1:
            yield ConvNorm(conv.path, readers[0].path)


def _has(tensors: Sequence[Tensor], wanted: Tensor) -> bool:
    return any(tensor is wanted for tensor in tensors)


def is_plain_conv(module: nn.Module) -> bool:
    """Whether a module is a convolution of the usual kind; one that standardizes its weights is not."""
    return type(module) in (nn.Conv2d, Conv2d)


def _is_fixed_norm(module: nn.Module) -> bool:
    # Subclasses with another forward do more than to normalize, as timm's with an activation does.
    is_plain = type(module).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)
    return (is_plain and isinstance(module, _BatchNorm) and module.running_mean is not None and module.affine
            and not module.training)


def _are_alone(model: nn.Module, run: Callable[[], Any], calls: Sequence[Call], pairs: Sequence[ConvNorm]) -> bool:
    """Whether nothing but its normalization reads a convolution, such as a function that no trace shows.

    In a second pass the convolutions give NaN, and the normalizations what they gave before: nothing else may be NaN.
    """
    norms, convs = {pair.norm for pair in pairs}, {pair.conv for pair in pairs}
    known = {call.path: call.outputs[0].clone() for call in calls if call.path in norms}
    results: list[Any] = []
    with _replaced(model, dict.fromkeys(convs) | known):
        seen = trace(model, lambda: results.append(run()))
    given = [call.outputs[0] for call in seen if call.path in convs]
    others = [tensor for call in seen if call.path not in convs for tensor in call.outputs]
    return not any(tensor.isnan().any() for tensor in (*others, *tensors_in(results))
                   if not _has(given, tensor))  # a module that ends in a convolution gives the same tensor


@contextmanager
def _replaced(model: nn.Module, outputs: dict[str, Any]) -> Iterator[None]:
    handles = [model.get_submodule(path).register_forward_hook(partial(_give, output))
               for path, output in outputs.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _give(output: Any, module: nn.Module, args: tuple, given: Tensor) -> Tensor:
    return torch.full_like(given, float('nan')) if output is None else output.clone()
