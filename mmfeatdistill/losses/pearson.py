"""One minus the Pearson correlation of each channel (PKD)."""
from torch import Tensor, nn

from mmfeatdistill.losses._pair import half_mean_square, matching_pair, mean_and_variation
from mmfeatdistill.registry import MODELS


def pearson(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Half the mean squared difference of features whose channels have mean 0 and deviation 1.

    .. math:: L = \frac{1}{2 N C I} \sum_{n,c,i} (\hat s_{nci} - \hat t_{nci})^2,
        \qquad \hat x_{c} = \frac{x_{c} - \mu_c}{\sigma_c + 10^{-6}}

    with mean and (unbiased) deviation of a channel over the batch and the I positions; this is
    :math:`1 - r` averaged over the channels, r being Pearson's correlation. PKD (arXiv
    2207.02039); the authors' code, too, standardizes both sides and takes the squared error. The
    mean runs over the entire batch, so the samples of a batch are not independent of each other.

    Args:
        student (Tensor): Feature, shape (N, C, ...).
        teacher (Tensor): Feature of the same shape; receives no gradient.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for an empty batch.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ, or have no channel dimension.

    Examples:
        >>> ramp = torch.arange(4.0).reshape(4, 1)
        >>> round(pearson(2 * ramp + 5, ramp).item(), 4)  # the scale of a channel does not matter
        0.0
        >>> round(pearson(-ramp, ramp).item(), 4)  # 1 - r, times 3 / 4 for the unbiased deviation
        1.5
    """
    student, teacher = matching_pair(student, teacher, '(N, C, ...)')
    if not student.numel():
        return student.sum()
    return half_mean_square(student, teacher, _standardization(student), _standardization(teacher))


def _standardization(feature: Tensor) -> tuple[Tensor, Tensor]:
    """Factor and summand of each channel that give it mean 0 and deviation 1."""
    rest = [dim for dim in range(feature.dim()) if dim != 1]
    count = feature.numel() // feature.shape[1]
    mean, variation = mean_and_variation(feature, rest)
    # Clamped, as the square root has no gradient at 0.
    scale = 1 / ((variation / max(count - 1, 1)).clamp(min=1e-30).sqrt() + 1e-6)
    return scale, -mean * scale


@MODELS.register_module(name=['Pearson', 'PKDLoss'])
class Pearson(nn.Module):
    """:func:`pearson` times ``loss_weight``.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1; the authors' detector configs use 6
            per FPN level (Faster R-CNN) and 10 (RetinaNet).
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.loss_weight * pearson(student, teacher)
