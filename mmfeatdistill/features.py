"""Feature maps: one layout, and one rule for sizes."""
import math
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class FeatureShape(NamedTuple):
    """Width and size of a feature map, as found by the dry run."""

    channels: int
    height: int
    width: int


def as_map(feature: Tensor) -> Tensor:
    """Brings a feature to the layout (N, C, H, W) that connectors and losses work on.

    Vectors (N, C) become maps of one position. Tokens (N, L, C), as transformer blocks give them,
    become a square map; class or register tokens must not be among them.

    Args:
        feature (Tensor): Shape (N, C), (N, L, C) or (N, C, H, W).

    Returns:
        Tensor: Shape (N, C, H, W); a view where possible.

    Raises:
        ValueError: Another rank, or tokens that are not square.

    Examples:
        >>> as_map(torch.zeros(2, 49, 768)).shape
        torch.Size([2, 768, 7, 7])
    """
    if feature.dim() == 4:
        return feature
    if feature.dim() == 2:
        return feature[:, :, None, None]
    if feature.dim() == 3:
        side = math.isqrt(feature.shape[1])
        if side * side == feature.shape[1]:
            return feature.transpose(1, 2).unflatten(2, (side, side))
        raise ValueError(
            f'{feature.shape[1]} tokens are not a square map: the tapped feature of shape '
            f"{tuple(feature.shape)} holds class tokens or an oblong grid. Tap the backbone's output with "
            "out_type='featmap' instead.")
    raise ValueError('a tapped feature must have shape (N, C), (N, L, C) or (N, C, H, W), got '
                     f'{tuple(feature.shape)}.')


def shape_of(feature: Tensor) -> FeatureShape:
    """The shape of a feature once it is a map.

    Args:
        feature (Tensor): See :func:`as_map`.

    Returns:
        FeatureShape: Channels, height and width.

    Raises:
        ValueError: See :func:`as_map`.
    """
    return FeatureShape(*as_map(feature).shape[1:])


def resize_to(feature: Tensor, size: tuple[int, int]) -> Tensor:
    """The resize rule: the student's connected map takes the teacher's size, bilinearly.

    Args:
        feature (Tensor): Shape (N, C, H, W).
        size (tuple[int, int]): Wanted height and width.

    Returns:
        Tensor: Shape (N, C, *size); the same tensor if it has that size.

    Examples:
        >>> resize_to(torch.zeros(1, 8, 16, 16), (8, 8)).shape
        torch.Size([1, 8, 8, 8])
    """
    if feature.shape[-2:] == size:
        return feature
    return F.interpolate(feature, size=size, mode='bilinear', align_corners=False)
