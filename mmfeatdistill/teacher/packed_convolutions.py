"""Convolution weights in the layout in which oneDNN computes on a CPU, for images of one size."""
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from mmfeatdistill.teacher.conv_bn_fusion import is_plain_conv


class PackedConvolutions:
    """The convolutions of a frozen network that see one size in a pass, with their weights laid out for it.

    Each pass otherwise copies all weights into that layout anew, which takes up to a third of it where batches are
    small. A layout for one size is slow for another, so other sizes are computed with the weights as they were, which
    are made from the packed ones in each call; there is no second copy of them.

    Args:
        model (nn.Module): The network, on a CPU and in single precision.
        run: Runs it, without gradient, on images of the size in question.
        batch_size (int): How many images a batch has.
        run_size (int): How many images ``run`` shows.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 1)).eval().requires_grad_(False)
        >>> image = torch.zeros(1, 3, 8, 8)
        >>> len(PackedConvolutions(net, lambda: net(image)))
        1
        >>> net(image).shape
        torch.Size([1, 4, 8, 8])
    """

    def __init__(self, model: nn.Module, run: Callable[[], Any], batch_size: int = 1, run_size: int = 1) -> None:
        self._packed = [_Packed(conv, [batch_size if shape[0] == run_size else shape[0], *shape[1:]])
                        for conv, shape in _sizes(model, run).items()]
        self.pack()

    def __len__(self) -> int:
        return len(self._packed)

    def pack(self) -> bool:
        """Lays the weights out for their sizes.

        Returns:
            bool: Whether that can be done; not when they have been moved to another device, or converted.
        """
        if not all(_is_packable(conv) for conv, _ in self._packed):
            return False
        try:
            for conv, shape in self._packed:
                weight = torch.ops.mkldnn._reorder_convolution_weight(conv.weight, *_options(conv), shape)
                conv.weight = None  # what reads it past the module fails, and is found in the next pass
                conv._conv_forward = partial(_convolve, weight, _options(conv), tuple(shape[2:]))
        except BaseException:
            self.unpack()  # all or none
            raise
        return True

    def unpack(self) -> None:
        """Lays the weights out as they were, bit for bit."""
        for conv, _ in self._packed:
            forward = vars(conv).pop('_conv_forward', None)
            if forward is not None:
                conv.weight = nn.Parameter(forward.args[0].to_dense(), requires_grad=False)


class _Packed(NamedTuple):
    conv: nn.Conv2d
    shape: list[int]


@lru_cache(maxsize=1)
def can_pack() -> bool:
    """Whether PyTorch has the operators that compute with packed weights; Inductor uses them for frozen networks."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):  # type: ignore[attr-defined]
        return False
    net, images = nn.Conv2d(8, 8, 3, padding=1).eval().requires_grad_(False), torch.ones(1, 8, 8, 8)
    expected = net(images)
    try:
        with torch.no_grad():
            PackedConvolutions(nn.Sequential(net), lambda: net(images))
            return torch.allclose(net(images), expected, atol=1e-4)
    except (AttributeError, RuntimeError, TypeError):  # an older PyTorch, or one built without them
        return False


def _sizes(model: nn.Module, run: Callable[[], Any]) -> dict[nn.Conv2d, list[int]]:
    """What can be packed, with the shape of what it sees."""
    seen: dict[nn.Conv2d, set[tuple[int, ...]]] = {}

    def note(conv: nn.Conv2d, args: tuple) -> None:
        seen.setdefault(conv, set()).add(tuple(args[0].shape) if args and isinstance(args[0], Tensor) else ())

    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    convs = [module for module in model.modules() if is_plain_conv(module) and _is_packable(module)  # type: ignore[arg-type]
             and owners[id(module.weight)] == 1]
    handles = [conv.register_forward_pre_hook(note) for conv in convs]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    shapes = {conv: next(iter(found)) for conv, found in seen.items() if len(found) == 1}  # type: ignore[misc]
    return {conv: list(shape) for conv, shape in shapes.items() if len(shape) == 4 and 0 not in shape}


def _is_packable(conv: nn.Conv2d) -> bool:
    weight = conv._parameters.get('weight')  # a parametrized one is none
    return (weight is not None and weight.dtype == torch.float32 and weight.device.type == 'cpu'
            and conv.padding_mode == 'zeros' and not isinstance(conv.padding, str)
            and '_conv_forward' not in vars(conv))


def _options(conv: nn.Conv2d) -> tuple[Any, ...]:
    return conv.padding, conv.stride, conv.dilation, conv.groups


def _convolve(packed: Tensor, options: Sequence, size: tuple[int, ...], inputs: Tensor, weight: None,
              bias: Optional[Tensor]) -> Tensor:
    """Takes the place of ``_conv_forward``."""
    padding, stride, dilation, groups = options
    is_plain = inputs.dtype == torch.float32 and not torch.is_autocast_enabled('cpu') and len(inputs)
    if inputs.shape[2:] != size or not is_plain:
        return conv2d(inputs, packed.to_dense(), bias, stride, padding, dilation, groups)
    return torch.ops.mkldnn._convolution_pointwise(inputs, packed, bias, padding, stride, dilation, groups, 'none', [],
                                                   '')
