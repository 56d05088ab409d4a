"""Gradients for operators that are written as a function only, and the precision that they compute in."""
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def gradients(function: Callable[..., Tensor], inputs: Sequence[Tensor], grad_output: Tensor) -> list[Tensor]:
    """The gradients of a function, which is run again for them.

    mmcv's operators come in pairs: a forward that keeps no graph, and a backward that is given the inputs anew.

    Args:
        function (Callable): Takes ``inputs``, returns one tensor.
        inputs (Sequence[Tensor]): Floating point tensors of any shape; what they are part of is not changed.
        grad_output (Tensor): Gradient of what the function returns, of its shape.

    Returns:
        list[Tensor]: One for each input, of its shape; zeros where the function does not depend on it.

    Examples:
        >>> gradients(torch.square, [torch.tensor([1., 3.])], torch.ones(2))
        [tensor([2., 6.])]
    """
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        output = function(*leaves)
        if not output.requires_grad:
            return [torch.zeros_like(tensor) for tensor in inputs]
        found = torch.autograd.grad(output, leaves, grad_output.to(output.dtype), allow_unused=True)
    return [torch.zeros_like(leaf) if gradient is None else gradient for leaf, gradient in zip(leaves, found)]


def at_least_single(tensor: Tensor) -> Tensor:
    """The tensor in a precision that every operator has on every device: half and bfloat16 become float32.

    Args:
        tensor (Tensor): Floating point, of any shape.

    Returns:
        Tensor: The same, or a copy in float32.

    Examples:
        >>> at_least_single(torch.zeros(2, dtype=torch.bfloat16)).dtype, at_least_single(torch.zeros(2).double()).dtype
        (torch.float32, torch.float64)
    """
    return tensor.float() if tensor.dtype in (torch.half, torch.bfloat16) else tensor
