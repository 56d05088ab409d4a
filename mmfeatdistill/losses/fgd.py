"""Focal and global distillation (FGD): where a map is active, where its objects are, and what all positions share."""
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmfeatdistill.losses._pair import check_pair, matching_pair, squared_distance

MAPS = '(N, C, H, W)'


def channel_attention(feature: Tensor, tau: float) -> Tensor:
    r"""How active each channel is, with the mean 1 over the channels.

    .. math:: A_{nc} = C \cdot \mathrm{softmax}_c\Bigl(\frac{1}{\tau H W} \sum_{i} |x_{nci}|\Bigr)

    Args:
        feature (Tensor): Shape (N, C, H, W).
        tau (float): Temperature, above 0.

    Returns:
        Tensor: Shape (N, C).

    Examples:
        >>> channel_attention(torch.tensor([[[[3.0]], [[-3.0]]]]), tau=0.5)
        tensor([[1., 1.]])
    """
    return feature.shape[1] * (feature.abs().mean((2, 3)) / tau).softmax(1)


def spatial_attention(feature: Tensor, tau: float) -> Tensor:
    r"""How active each position is, with the mean 1 over the positions.

    .. math:: A_{ni} = H W \cdot \mathrm{softmax}_i\Bigl(\frac{1}{\tau C} \sum_{c} |x_{nci}|\Bigr)

    Args:
        feature (Tensor): Shape (N, C, H, W).
        tau (float): Temperature, above 0.

    Returns:
        Tensor: Shape (N, H, W).

    Examples:
        >>> spatial_attention(torch.tensor([[[[3.0, -3.0]]]]), tau=0.5)
        tensor([[[1., 1.]]])
    """
    n, _, height, width = feature.shape
    activity = feature.abs().mean(1).view(n, height * width)
    return (height * width * (activity / tau).softmax(1)).view(n, height, width)


def focal(student: Tensor, teacher: Tensor, *, masks: Sequence[Tensor], tau: float) -> Tensor:
    r"""Squared error, weighted by the teacher's attention and by masks, of which each gives a loss of its own.

    .. math:: L_k = \frac{1}{N} \sum_{n,c,i} (s_{nci} - t_{nci})^2 \, A^t_{nc} \, A^t_{ni} \, m_{kni}

    with the teacher's attentions :func:`channel_attention` and :func:`spatial_attention`. FGD (arXiv 2111.11837) has a
    mask of the foreground and one of the background; see :func:`mmfeatdistill.objectives.box_masks.box_masks`.

    Args:
        student (Tensor): Feature, shape (N, C, H, W).
        teacher (Tensor): Feature of the same shape; receives no gradient.
        masks (Sequence[Tensor]): K masks of shape (N, H, W).
        tau (float): Temperature of the attention, above 0.

    Returns:
        Tensor: Shape (K), float32 or wider. Zero for an empty batch.

    Raises:
        TypeError: A feature is no floating-point tensor.
        ValueError: The shapes differ, a mask does not fit them, or ``tau`` is not positive.

    Examples:
        >>> student, teacher = torch.tensor([[[[3.0, 1.0]]]]), torch.tensor([[[[1.0, 1.0]]]])
        >>> focal(student, teacher, masks=[torch.tensor([[[0.5, 0.0]]]), torch.tensor([[[0.0, 1.0]]])], tau=0.5)
        tensor([2., 0.])
    """
    student, teacher = _checked(student, teacher, tau)
    n, _, height, width = student.shape
    wrong = [tuple(mask.shape) for mask in masks if mask.shape != (n, height, width)]
    if wrong:
        raise ValueError(f'a mask must have the shape {(n, height, width)} of {tuple(student.shape)} without its '
                         f'channels, got {wrong[0]}.')
    # In place, as the gradient of the squares is found from the features.
    squares = F.mse_loss(student, teacher, reduction='none').mul_(channel_attention(teacher, tau)[:, :, None, None])
    error = squares.sum(1) * spatial_attention(teacher, tau)
    return torch.stack([(error * mask).sum() for mask in masks]) / max(n, 1)


def attention_error(student: Tensor, teacher: Tensor, *, tau: float) -> Tensor:
    r"""Sum of the absolute differences of the attentions, averaged over the batch.

    .. math:: L = \frac{1}{N} \sum_n \Bigl( \sum_c |A^s_{nc} - A^t_{nc}| + \sum_i |A^s_{ni} - A^t_{ni}| \Bigr)

    with :func:`channel_attention` and :func:`spatial_attention`. FGD (arXiv 2111.11837).

    Args:
        student (Tensor): Feature, shape (N, C, H, W).
        teacher (Tensor): Feature of the same shape; receives no gradient.
        tau (float): Temperature of the attention, above 0.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for an empty batch.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ, or ``tau`` is not positive.

    Examples:
        >>> student, teacher = torch.tensor([[[[1.0, 1.0]]]]), torch.tensor([[[[0.0, 9.0]]]])
        >>> attention_error(student, teacher, tau=0.5)  # (1, 1) and (0, 2) over the positions
        tensor(2.)
    """
    student, teacher = _checked(student, teacher, tau)
    differences = (attention(student, tau) - attention(teacher, tau)
                   for attention in (channel_attention, spatial_attention))
    return sum(difference.abs().sum() for difference in differences) / max(student.shape[0], 1)


def global_relation(student: Tensor, teacher: Tensor, *, student_block: Callable[[Tensor], Tensor],
                    teacher_block: Callable[[Tensor], Tensor]) -> Tensor:
    r"""Squared error of what two blocks make of the features, summed over a sample and averaged over the batch.

    .. math:: L = \frac{1}{N} \sum_n \lVert G_s(s_n) - G_t(t_n) \rVert_2^2

    FGD (arXiv 2111.11837). Both blocks are trained, so the target moves, as in the authors' code;
    :class:`mmfeatdistill.connectors.global_block.GlobalBlock` is what they are.

    Args:
        student (Tensor): Feature, shape (N, C, H, W).
        teacher (Tensor): Feature of the same shape; receives no gradient.
        student_block (Callable): Maps the student's feature to one of the same shape; its parameters are trained.
        teacher_block (Callable): The same for the teacher's.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for an empty batch.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ.

    Examples:
        >>> global_relation(torch.ones(1, 2, 1, 1), torch.ones(1, 2, 1, 1), student_block=torch.nn.Identity(),
        ...                 teacher_block=lambda feature: 3 * feature)
        tensor(8.)
    """
    check_pair(student, teacher, MAPS)
    # The blocks are networks: they see the precision that the model trains in.
    own, theirs = student_block(student), teacher_block(teacher.detach())
    dtype = torch.promote_types(torch.promote_types(own.dtype, theirs.dtype), torch.float32)
    return squared_distance(own.to(dtype), theirs.to(dtype)) / max(student.shape[0], 1)


def _checked(student: Tensor, teacher: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    pair = matching_pair(student, teacher, MAPS)
    if not tau > 0:
        raise ValueError(f'tau must be positive, got {tau}.')
    return pair
