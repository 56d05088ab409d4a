"""Margin and partial distance of the feature overhaul (OFD)."""
import math

import torch
from torch import Tensor

from mmfeatdistill.losses._pair import matching_pair, require_floating, squared_distance


def overhaul_margin(bn_weight: Tensor, bn_bias: Tensor) -> Tensor:
    r"""Mean of the negative part of each channel, told by the batch normalization before.

    .. math:: m = \mathrm{E}[x \mid x < 0]
        = \beta - |\gamma| \, \frac{\varphi(\beta / |\gamma|)}{\Phi(-\beta / |\gamma|)},
        \qquad x \sim \mathcal N(\beta, \gamma^2)

    Feature overhaul (arXiv 1904.01866). The authors' code returns :math:`-3 |\gamma|` where at
    most one value in a thousand is negative, as here; where :math:`\gamma = 0`, on which it fails,
    the limit :math:`\min(\beta, 0)` is taken.

    Args:
        bn_weight (Tensor): Scale :math:`\gamma`, shape (C).
        bn_bias (Tensor): Shift :math:`\beta`, shape (C).

    Returns:
        Tensor: Margins of shape (C), not positive, without gradient; float32 or wider.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: They are not vectors of the same length.

    Examples:
        >>> overhaul_margin(torch.tensor([1.0, -1.0, 2.0]), torch.tensor([0.0, 0.0, 9.0]))
        tensor([-0.7979, -0.7979, -6.0000])
    """
    require_floating(bn_weight=bn_weight, bn_bias=bn_bias)
    if bn_weight.dim() != 1 or bn_weight.shape != bn_bias.shape:
        raise ValueError('bn_weight and bn_bias must have the shape (C), got '
                         f'{tuple(bn_weight.shape)} and {tuple(bn_bias.shape)}.')
    gamma, beta = bn_weight.detach().double().abs(), bn_bias.detach().double()
    ratio = beta / gamma
    below = torch.special.ndtr(-ratio)
    density = torch.exp(-ratio.square() / 2) / math.sqrt(2 * math.pi)
    margin = torch.where(below > 0.001, beta - gamma * density / below, -3 * gamma)
    return torch.where(gamma > 0, margin, beta.clamp(max=0)).to(
        torch.promote_types(bn_weight.dtype, torch.float32))


def partial_l2(student: Tensor, teacher: Tensor, *, margin: Tensor) -> Tensor:
    r"""Sum of squared differences to the margin ReLU of the teacher, where the difference matters.

    .. math:: L = \sum_{n,c,i} \begin{cases} 0 & s_{nci} \le t'_{nci} \le 0 \\
        (s_{nci} - t'_{nci})^2 & \text{else} \end{cases}, \qquad t'_{nci} = \max(t_{nci}, m_c)

    Feature overhaul (arXiv 1904.01866): where the teacher is not active, a student below it is as
    good as one that equals it. The sum is not divided by the batch, as stages of different weight
    are added before the authors divide.

    Args:
        student (Tensor): Pre-activation feature, shape (N, C, ...).
        teacher (Tensor): Pre-activation feature of the same shape, not yet through the margin
            ReLU; receives no gradient.
        margin (Tensor): Margin of each channel, shape (C), not positive (see
            :func:`overhaul_margin`).

    Returns:
        Tensor: Scalar, float32 or wider. Zero for an empty batch.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ, or the margin has not one value a channel.

    Examples:
        >>> student = torch.tensor([[[1.0, -2.0, -0.2, 3.0]]])
        >>> teacher = torch.tensor([[[2.0, -1.0, -1.0, -1.0]]])
        >>> partial_l2(student, teacher, margin=torch.tensor([-0.5]))  # 1 + 0 + 0.3^2 + 3.5^2
        tensor(13.3400)
    """
    student, teacher = matching_pair(student, teacher, '(N, C, ...)')
    require_floating(margin=margin)
    if margin.shape != student.shape[1:2]:
        raise ValueError('margin must have one value for each channel of '
                         f'{tuple(student.shape)}, got {tuple(margin.shape)}.')
    with torch.no_grad():  # the student itself is the target where nothing is asked of it
        margin = margin.to(student.dtype).view(-1, *[1] * (student.dim() - 2))
        target = torch.maximum(teacher, margin)
        torch.where((student > target).logical_or_(target > 0), target, student, out=target)
    return squared_distance(student, target)
