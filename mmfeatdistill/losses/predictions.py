"""Distances between what two detectors predict, row by row: scores of classes, distributions, boxes."""
import torch
import torch.nn.functional as F
from torch import Tensor

from mmfeatdistill.losses._pair import matching_pair

_SMALLEST_AREA = 1e-9
"""Boxes whose union is no larger have no area, in pixels as in fractions of an image."""


def quality_focal(student: Tensor, teacher: Tensor, *, beta: float = 2.0) -> Tensor:
    r"""Quality focal loss with the teacher's scores as targets.

    .. math:: L_n = \sum_k |\sigma(t_{nk}) - \sigma(s_{nk})|^\beta \, \mathrm{BCE}\bigl(s_{nk}, \sigma(t_{nk})\bigr)

    Where the two agree it is 0, unlike the cross-entropy alone. Source: Generalized Focal Loss (arXiv 2006.04388).

    Args:
        student (Tensor): Logits of N rows, shape (N, K).
        teacher (Tensor): Logits of the same shape; receives no gradient.
        beta (float): Exponent, at least 1. Defaults to 2, that of the paper.

    Returns:
        Tensor: Shape (N), float32 or wider.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ, or ``beta`` is below 1.

    Examples:
        >>> quality_focal(torch.zeros(1, 2), torch.tensor([[100.0, 0.0]]))  # a quarter of log 2, and nothing
        tensor([0.1733])
    """
    student, teacher = matching_pair(student, teacher, '(N, K)')
    if not beta >= 1:
        raise ValueError(f'beta must be at least 1, got {beta}.')
    target = teacher.sigmoid()
    factor = (target - student.sigmoid()).abs() ** beta
    return (factor * F.binary_cross_entropy_with_logits(student, target, reduction='none')).sum(1)


def binary_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Divergence of scores that are yes or no each, from the teacher's.

    .. math:: L_n = \sum_k \mathrm{BCE}\bigl(s_{nk}, \sigma(t_{nk})\bigr)
        - \mathrm{BCE}\bigl(t_{nk}, \sigma(t_{nk})\bigr)

    It has the gradient of the binary cross-entropy, and is 0 where the two agree.

    Args:
        student (Tensor): Logits of N rows, shape (N, K).
        teacher (Tensor): Logits of the same shape; receives no gradient.

    Returns:
        Tensor: Shape (N), float32 or wider.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ.

    Examples:
        >>> binary_divergence(torch.zeros(2, 1), torch.tensor([[0.0], [100.0]]))
        tensor([0.0000, 0.6931])
    """
    student, teacher = matching_pair(student, teacher, '(N, K)')
    target = teacher.sigmoid()
    cross, own = (F.binary_cross_entropy_with_logits(x, target, reduction='none') for x in (student, teacher))
    return (cross - own).sum(1)


def distribution_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Kullback-Leibler divergence of the distribution of each row from the teacher's.

    .. math:: L_n = \sum_k p_k(t_n) \bigl(\log p_k(t_n) - \log p_k(s_n)\bigr), \qquad p = \mathrm{softmax}

    Args:
        student (Tensor): Logits of N distributions over K values, such as the distances of a box's side, shape (N, K).
        teacher (Tensor): Logits of the same shape; receives no gradient.

    Returns:
        Tensor: Shape (N), float32 or wider.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ.

    Examples:
        >>> distribution_divergence(torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]).log())
        tensor([0.1308])
    """
    student, teacher = matching_pair(student, teacher, '(N, K)')
    return F.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction='none', log_target=True).sum(1)


def box_distance(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Generalized intersection over union of two boxes, as a distance from 0 to 2.

    .. math:: L_n = 1 - \frac{|s_n \cap t_n|}{|s_n \cup t_n|} + \frac{|c_n| - |s_n \cup t_n|}{|c_n|}

    with :math:`c_n` the smallest box around both. Two boxes without area have the first two terms 0, so that equal
    boxes always have the distance 0. Source: GIoU (arXiv 1902.09630).

    Args:
        student (Tensor): Corners x0, y0, x1, y1 of N boxes, shape (N, 4).
        teacher (Tensor): Corners of the same shape; receives no gradient.

    Returns:
        Tensor: Shape (N), float32 or wider.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ, or are not (N, 4).

    Examples:
        >>> box_distance(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[0.0, 0.0, 2.0, 1.0]]))
        tensor([0.5000])
    """
    student, teacher = matching_pair(student, teacher, '(N, 4)')
    if student.shape[1] != 4:
        raise ValueError(f'boxes have the shape (N, 4), four corners each, got {tuple(student.shape)}.')
    own, theirs = _corners(student), _corners(teacher)
    common = _area(torch.maximum(own[0], theirs[0]), torch.minimum(own[1], theirs[1]))
    union = _area(*own) + _area(*theirs) - common
    around = _area(torch.minimum(own[0], theirs[0]), torch.maximum(own[1], theirs[1]))
    overlap = torch.where(union > _SMALLEST_AREA, common / union.clamp_min(_SMALLEST_AREA), 1)
    return 1 - overlap + (around - union) / around.clamp_min(_SMALLEST_AREA)


def _corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return boxes[:, :2], boxes[:, 2:]


def _area(first: Tensor, last: Tensor) -> Tensor:
    """Of boxes from their first to their last corner; none of those that are inside out."""
    return (last - first).clamp_min(0).prod(1)
