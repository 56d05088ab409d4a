"""Losses whose intermediate values are much larger than the features."""
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def sum_in_parts(function: Callable[..., Tensor], student: Tensor, *others: Tensor, size: int) -> Tensor:
    """Sum of a function over parts of a batch; what it computes on the way exists for one part at a time.

    The gradient is computed part by part along with the value. So one tensor of the student's size is kept for the
    backward pass, in place of all intermediate values.

    Args:
        function (Callable): Gives a scalar for the same part of each tensor.
        student (Tensor): Shape (N, ...).
        *others (Tensor): N rows each, without gradient.
        size (int): Rows of a part.

    Returns:
        Tensor: Scalar.

    Examples:
        >>> student = torch.arange(4.0, requires_grad=True)
        >>> sum_in_parts(lambda s, t: ((s - t) ** 2).sum(), student, torch.ones(4), size=3).backward()
        >>> student.grad
        tensor([-2.,  0.,  2.,  4.])
    """
    parts = zip(*(tensor.split(size) for tensor in (student, *others)))
    total = student.new_zeros(())
    if not (torch.is_grad_enabled() and student.requires_grad):
        for part in parts:
            total += function(*part)
        return total
    gradient = torch.empty_like(student)
    for (own, *rest), slot in zip(parts, gradient.split(size)):
        own = own.detach().requires_grad_()
        value = function(own, *rest)
        slot.copy_(torch.autograd.grad(value, own)[0])
        total += value.detach()
    return _WithGradient.apply(student, total, gradient)


class _WithGradient(torch.autograd.Function):
    """A scalar whose gradient is known."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor, None, None]:
        [gradient] = ctx.saved_tensors
        return gradient * factor, None, None
