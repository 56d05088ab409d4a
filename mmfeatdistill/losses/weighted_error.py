"""Squared error as a weighted mean over positions: each counts as much as something else says."""
from typing import Optional

import torch.nn.functional as F
from torch import Tensor, nn

from mmfeatdistill.losses._pair import matching_pair
from mmfeatdistill.registry import MODELS


def weighted_error(student: Tensor, teacher: Tensor, *, weight: Optional[Tensor] = None) -> Tensor:
    r"""Weighted mean of the squared differences over positions and channels.

    .. math:: L = \frac{\sum_{n,c,i} w_{ni} (s_{nci} - t_{nci})^2}{C \sum_{n,i} w_{ni} + 10^{-9}}

    As a mean it does not grow with the size of the map or the share of it that counts. The sums are those of the batch:
    an image in which more counts has the larger part in it.

    Args:
        student (Tensor): Feature, shape (N, C, H, W).
        teacher (Tensor): Feature of the same shape; receives no gradient.
        weight (Tensor, optional): What each position counts, at least 0, shape (N, 1, H, W); receives no gradient.
            Defaults to None: all alike.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for an empty batch, and where nothing counts.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ, or that of the weight does not fit them.

    Examples:
        >>> student, teacher = torch.tensor([[[[3.0, 1.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
        >>> weighted_error(student, teacher), weighted_error(student, teacher, weight=torch.tensor([[[[1.0, 3.0]]]]))
        (tensor(2.5000), tensor(1.7500))
    """
    student, teacher = matching_pair(student, teacher, '(N, C, H, W)')
    n, channels, height, width = student.shape
    if weight is None:
        weight = student.new_ones(n, 1, height, width)
    if weight.shape != (n, 1, height, width):
        raise ValueError(f'weight must have the shape {(n, 1, height, width)} for features {tuple(student.shape)}, got '
                         f'{tuple(weight.shape)}.')
    weight = weight.detach().to(student.dtype)
    squares = F.mse_loss(student, teacher, reduction='none').sum(1, keepdim=True)
    return (weight * squares).sum() / (channels * weight.sum() + 1e-9)


@MODELS.register_module()
class WeightedError(nn.Module):
    """:func:`weighted_error` times ``loss_weight``; the weights come from ``weight`` of ``FeatureMatch``.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1.
    """

    takes_weight = True

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor, *, weight: Optional[Tensor] = None) -> Tensor:
        return self.loss_weight * weighted_error(student, teacher, weight=weight)
