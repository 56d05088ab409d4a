"""Mean squared error of a map and of its coarser forms (ReviewKD)."""
import torch.nn.functional as F
from torch import Tensor, nn

from mmfeatdistill.losses._pair import matching_pair, mean_squared_error
from mmfeatdistill.registry import MODELS

_SIDES = (4, 2, 1)
"""Of the coarser forms, from the finest on."""


def hierarchical_context(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Weighted mean of the mean squared errors of a map and of what it is averaged to.

    .. math:: L = \frac{\sum_{k=0}^{K} 2^{-k} \, \mathrm{mse}\bigl(P_k(s), P_k(t)\bigr)}{\sum_{k=0}^{K} 2^{-k}}

    with the map itself as :math:`P_0`, and :math:`P_1, P_2, \dots` its means over 4 x 4, 2 x 2 and 1 x 1 parts,
    of which only those are used that have fewer rows than the map. The hierarchical context loss of ReviewKD (arXiv
    2104.09044), as in the authors' code: it has the weights, and lets the height alone decide; a map of one row is
    compared as it is.

    Args:
        student (Tensor): Feature, shape (N, C, H, W).
        teacher (Tensor): Feature of the same shape; receives no gradient.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for an empty batch.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ, or are not those of maps.

    Examples:
        >>> student, teacher = torch.tensor([[[[1.0], [3.0]]]]), torch.zeros(1, 1, 2, 1)
        >>> hierarchical_context(student, teacher)  # (5 + 4 / 2) / 1.5
        tensor(4.6667)
    """
    student, teacher = matching_pair(student, teacher, '(N, C, H, W)')
    total, weights, weight = mean_squared_error(student, teacher), 1.0, 1.0
    for side in _SIDES:
        if side < student.shape[2]:
            weight /= 2
            weights += weight
            coarser = (F.adaptive_avg_pool2d(feature, side) for feature in (student, teacher))
            total = total + weight * mean_squared_error(*coarser)
    return total / weights


@MODELS.register_module(name=['HierarchicalContext', 'HCL'])
class HierarchicalContext(nn.Module):
    """:func:`hierarchical_context` times ``loss_weight``.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.loss_weight * hierarchical_context(student, teacher)
