"""What every loss asks of its two tensors.

Maps have one size when they come here: :func:`mmfeatdistill.taps.feature_map.same_size` resizes them.
"""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def matching_pair(student: Tensor, teacher: Tensor, shape: str = '(...)', *,
                  any_width: bool = False) -> tuple[Tensor, Tensor]:
    """Checks a student-teacher pair and brings it to one precision of at least float32.

    Half and bfloat16 tensors become float32, as sums over a feature map overflow in half precision;
    float64 stays. The teacher is detached: no loss sends a gradient to it.

    Args:
        student (Tensor): Any floating-point tensor.
        teacher (Tensor): A tensor of the same shape.
        shape (str): The dimensions that the loss needs, as its docstring writes them: ``'(N, K)'``
            for exactly two, ``'(N, C, ...)'`` for at least two. Defaults to ``'(...)'``: any.
        any_width (bool): Whether their second dimension, the channels, may differ. Defaults to False.

    Returns:
        tuple[Tensor, Tensor]: The two, with the same dtype; the teacher without gradient.

    Raises:
        TypeError: One of them is no floating-point tensor.
        ValueError: Their shapes differ, or are not of the form ``shape``.
    """
    check_pair(student, teacher, shape, any_width=any_width)
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype), teacher.detach().to(dtype)


def check_pair(student: Tensor, teacher: Tensor, shape: str = '(...)', *, any_width: bool = False) -> None:
    """The checks of :func:`matching_pair` alone."""
    require_floating(student=student, teacher=teacher)
    given = f'{tuple(student.shape)} and {tuple(teacher.shape)}'
    compared = [(x.dim(), x.shape[:1], x.shape[2 if any_width else 1:]) for x in (student, teacher)]
    if compared[0] != compared[1]:
        raise ValueError(f'student and teacher must have the same shape{", but for the width" if any_width else ""}, '
                         f'got {given}.')
    if not has_form(student, shape):
        raise ValueError(f'student and teacher must have the shape {shape}, got {given}.')


def require_classes(logits: Tensor) -> None:
    """Raises ValueError where a distribution over the classes, dimension 1, would be of one class: it is always 1."""
    if logits.shape[1] < 2:
        raise ValueError(f'at least two classes are needed, got logits {tuple(logits.shape)}. One channel, as of a '
                         "head with use_sigmoid, is compared by dict(type='SquaredError').")


def require_floating(**tensors: Tensor) -> None:
    """Raises TypeError where an argument is no floating-point tensor."""
    for name, value in tensors.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            given = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f'{name}: expected a floating-point tensor, got {given}.')


def has_form(tensor: Tensor, shape: str) -> bool:
    """Whether a tensor has as many dimensions as ``'(N, K)'`` or ``'(N, C, ...)'`` names."""
    names = shape.strip('()').split(', ')
    if names[-1] == '...':
        return tensor.dim() >= len(names) - 1
    return tensor.dim() == len(names)


def squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum of the squared differences of all elements; keeps nothing for the backward pass but the two."""
    # The one value that reduction='sum' gives lives in, and holds on to, a tensor of the feature's size.
    return F.mse_loss(student, teacher, reduction='none').sum()


def mean_squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of :func:`squared_distance` over all elements; zero where there are none."""
    return squared_distance(student, teacher) / max(student.numel(), 1)


def mean_and_variation(tensor: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mean along ``dims``, and sum of the squared distances to it; both with these dimensions kept as 1."""
    mean = tensor.mean(dims, keepdim=True)
    # Without the gradient of the mean, which is zero, nothing but the tensor itself is kept for the backward pass.
    squares = F.mse_loss(tensor, mean.detach().expand_as(tensor), reduction='none')
    return mean, squares.sum(dims, keepdim=True)


def half_mean_square(student: Tensor, teacher: Tensor, own: tuple[Tensor, Tensor],
                     theirs: tuple[Tensor, Tensor]) -> Tensor:
    """Half the mean squared difference of two features, each times a factor plus a summand; 0 of empty ones.

    Args:
        student (Tensor): Any shape.
        teacher (Tensor): The same shape, without gradient.
        own (tuple[Tensor, Tensor]): Factor and summand of the student's feature, of a shape that extends to its own.
        theirs (tuple[Tensor, Tensor]): Those of the teacher's.
    """
    (scale, shift), (teacher_scale, teacher_shift) = own, theirs
    # Both scaled and subtracted in one tensor of their size.
    difference = torch.addcmul(shift - teacher_shift, student, scale).addcmul_(teacher, -teacher_scale)
    zeros = torch.zeros_like(shift).expand_as(difference)
    return squared_distance(difference, zeros) / max(2 * difference.numel(), 1)


def unit_length(tensor: Tensor, dim: int) -> Tensor:
    """Divides by the norm along ``dim``; zero vectors stay zero, with a bounded gradient."""
    return tensor / length(tensor, dim)


def length(tensor: Tensor, dim: int) -> Tensor:
    """The norm along ``dim``, to divide by: 1 for zero vectors."""
    norm = torch.linalg.vector_norm(tensor, dim=dim, keepdim=True)
    return norm.masked_fill(norm == 0, 1)


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context in which matrix products keep their precision when a model trains mixed."""
    return torch.autocast(tensor.device.type, enabled=False)
