"""Squared error, summed over a sample and averaged over the batch."""
from torch import Tensor, nn

from mmfeatdistill.losses._pair import matching_pair, squared_distance
from mmfeatdistill.registry import MODELS


def squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Sum of squared differences of a sample, averaged over the batch.

    .. math:: L = \frac{1}{N} \sum_{n} \sum_{c,h,w} (s_{nchw} - t_{nchw})^2

    The form of Channel MLP (arXiv 2303.13212, eq. 3) and of its siblings.

    Args:
        student (Tensor): Feature, shape (N, ...).
        teacher (Tensor): Feature of the same shape; receives no gradient.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for an empty batch.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ, or have no batch dimension.

    Examples:
        >>> squared_error(torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 4, 4))
        tensor(48.)
    """
    student, teacher = matching_pair(student, teacher, '(N, ...)')
    return squared_distance(student, teacher) / max(student.shape[0], 1)


@MODELS.register_module()
class SquaredError(nn.Module):
    """:func:`squared_error` times ``loss_weight``.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.loss_weight * squared_error(student, teacher)
