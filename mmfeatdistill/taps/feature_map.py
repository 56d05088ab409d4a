"""Feature maps: one layout, and one rule for sizes."""
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

    Vectors (N, C) become maps of one position. Tokens (N, L, C), as transformer blocks give them, become
    a column of L positions, as nothing tells their grid.

    Args:
        feature (Tensor): Shape (N, C), (N, L, C) or (N, C, H, W).

    Returns:
        Tensor: Shape (N, C, H, W); a view where possible.

    Raises:
        ValueError: Another rank.

    Examples:
        >>> as_map(torch.zeros(2, 49, 768)).shape
        torch.Size([2, 768, 49, 1])
    """
    if feature.dim() == 4:
        return feature
    if feature.dim() == 2:
        return feature[:, :, None, None]
    if feature.dim() == 3:
        return feature.transpose(1, 2).unsqueeze(3)
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


def same_size(student: Tensor, teacher: Tensor, has_tokens: bool = False) -> tuple[Tensor, Tensor]:
    """The resize rule: the student's connected map takes the teacher's size, bilinearly.

    Tokens are matched one by one, with each other or with the positions of a map in reading order.

    Args:
        student (Tensor): Connected student map, shape (N, C, H_s, W_s).
        teacher (Tensor): Teacher map, shape (N, C, H_t, W_t).
        has_tokens (bool): Whether one of them was made from tokens. Defaults to False.

    Returns:
        tuple[Tensor, Tensor]: Two maps of the same size; the same tensors where the sizes agree.

    Raises:
        ValueError: Tokens and another number of positions.

    Examples:
        >>> student, teacher = same_size(torch.zeros(1, 8, 16, 16), torch.zeros(1, 8, 8, 8))
        >>> student.shape
        torch.Size([1, 8, 8, 8])
    """
    if student.shape[-2:] == teacher.shape[-2:]:
        return student, teacher
    if not has_tokens:
        return F.interpolate(student, size=teacher.shape[-2:], mode='bilinear', align_corners=False), teacher
    student, teacher = student.flatten(2).unsqueeze(3), teacher.flatten(2).unsqueeze(3)
    if student.shape[2] != teacher.shape[2]:
        raise ValueError(
            f'the student has {student.shape[2]} and the teacher {teacher.shape[2]} positions, and tokens cannot be '
            'resized, as nothing tells their grid, or as they are of several levels. Tap a place that gives maps, such '
            "as a neck, or a backbone with out_type='featmap'.")
    return student, teacher
