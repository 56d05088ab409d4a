"""Deformable convolutions, by torchvision, with and without modulation."""
from typing import NamedTuple

from torch import Tensor

from mmfeatdistill.mmcv_ops.differentiation import at_least_single
from mmfeatdistill.mmcv_ops.torchvision_operators import torchvision_operator

FAR = -1e6


class Geometry(NamedTuple):
    """How the kernel lies on the map; pairs are (vertical, horizontal)."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    deform_groups: int


def deform_conv(features: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None,
                geometry: Geometry) -> Tensor:
    """A convolution whose every tap reads from where the offset moves it to.

    Args:
        features (Tensor): ``(B, C, H, W)``.
        weight (Tensor): ``(O, C / groups, kh, kw)``.
        offset (Tensor): ``(B, 2 * deform_groups * kh * kw, h, w)``: down and right, for one tap after the other. A
            tap whose offset is not a number reads 0.
        mask (Tensor | None): Factors of the taps, ``(B, deform_groups * kh * kw, h, w)``; None for 1.
        bias (Tensor | None): ``(O,)``.
        geometry (Geometry): Stride, padding, dilation and groups.

    Returns:
        Tensor: ``(B, O, h, w)``.

    Raises:
        ImportError: torchvision cannot be loaded.

    Examples:
        >>> once = Geometry((1, 1), (0, 0), (1, 1), 1, 1)
        >>> features, down = torch.arange(4.).view(1, 1, 2, 2), torch.tensor([1., 0.]).view(1, 2, 1, 1)
        >>> deform_conv(features, torch.ones(1, 1, 1, 1), down.expand(1, 2, 2, 2), None, None, once)
        tensor([[[[2., 3.],
                  [0., 0.]]]])
    """
    features = at_least_single(features)
    return torchvision_operator('deform_conv2d')(features, *_arguments(features, weight, offset, mask, bias, geometry))


def deform_conv_gradients(grad: Tensor, features: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None,
                          bias: Tensor | None, geometry: Geometry) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of `deform_conv`.

    Args:
        grad (Tensor): Of what it returned, ``(B, O, h, w)``.
        features (Tensor): As for `deform_conv`, like all that follow.
        weight (Tensor): The same.
        offset (Tensor): The same.
        mask (Tensor | None): The same.
        bias (Tensor | None): The same.
        geometry (Geometry): The same.

    Returns:
        tuple[Tensor, ...]: Of features, weight, offset, mask and bias; those of a missing mask or bias mean nothing.

    Raises:
        ImportError: torchvision cannot be loaded.

    Examples:
        >>> once = Geometry((1, 1), (0, 0), (1, 1), 1, 1)
        >>> features, offset = torch.arange(4.).view(1, 1, 2, 2), torch.zeros(1, 2, 2, 2)
        >>> deform_conv_gradients(features, features, torch.ones(1, 1, 1, 1), offset, None, None, once)[1].item()
        14.0
    """
    features = at_least_single(features)
    return torchvision_operator('_deform_conv2d_backward')(
        grad.to(features.dtype).contiguous(), features, *_arguments(features, weight, offset, mask, bias, geometry))


def _arguments(features: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None,
               geometry: Geometry) -> tuple:
    """What torchvision's operators take after the features."""
    use_mask = mask is not None
    # torchvision reads out of bounds where an offset is not a number, as after a training has diverged.
    offset = offset.to(features.dtype).nan_to_num(FAR)
    mask = features.new_zeros(len(features), 0) if mask is None else mask
    bias = features.new_zeros(len(weight)) if bias is None else bias
    tensors = (tensor.to(features.dtype).contiguous() for tensor in (weight, offset, mask, bias))
    return (*tensors, *geometry.stride, *geometry.padding, *geometry.dilation, geometry.groups, geometry.deform_groups,
            use_mask)
