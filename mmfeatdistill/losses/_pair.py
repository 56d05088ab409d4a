"""What every loss asks of its two tensors."""
import torch
from torch import Tensor


def matching_pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Checks a student-teacher pair and brings it to one precision of at least float32.

    Half and bfloat16 tensors become float32, as sums over a feature map overflow in half precision;
    float64 stays. The teacher is detached: no loss sends a gradient to it.

    Args:
        student (Tensor): Any floating-point tensor.
        teacher (Tensor): A tensor of the same shape.

    Returns:
        tuple[Tensor, Tensor]: The two, with the same dtype; the teacher without gradient.

    Raises:
        TypeError: One of them is no floating-point tensor.
        ValueError: Their shapes differ.
    """
    for name, value in (('student', student), ('teacher', teacher)):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            given = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f'{name}: expected a floating-point tensor, got {given}.')
    if student.shape != teacher.shape:
        raise ValueError('student and teacher must have the same shape, got '
                         f'{tuple(student.shape)} and {tuple(teacher.shape)}.')
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype), teacher.detach().to(dtype)
