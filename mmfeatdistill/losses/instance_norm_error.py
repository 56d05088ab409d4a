"""Half the mean squared difference of instance-normalized features (CanKD)."""
import math

import torch
from torch import Tensor, nn

from mmfeatdistill.losses._pair import half_mean_square, matching_pair, mean_and_variation
from mmfeatdistill.registry import MODELS


def instance_norm_error(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Half the mean squared difference of features whose channels have mean 0 and deviation 1 in each image.

    .. math:: L = \frac{1}{2 N C I} \sum_{n,c,i} (\hat s_{nci} - \hat t_{nci})^2,
        \qquad \hat x_{nci} = \frac{x_{nci} - \mu_{nc}}{\sqrt{\sigma_{nc}^2 + 10^{-5}}}

    with mean and (biased) variance of a channel over the I positions of one image: instance normalization without
    parameters. CanKD (arXiv 2511.21503), as in the authors' code, which has the half.

    Args:
        student (Tensor): Feature, shape (N, C, H, ...), of at least two positions.
        teacher (Tensor): Feature of the same shape; receives no gradient.

    Returns:
        Tensor: Scalar, float32 or wider. Zero for an empty batch.

    Raises:
        TypeError: An argument is no floating-point tensor.
        ValueError: The shapes differ, or have fewer than two positions, which instance normalization maps to 0.

    Examples:
        >>> ramp = torch.arange(4.0).reshape(1, 1, 4)
        >>> round(instance_norm_error(2 * ramp + 5, ramp).item(), 4)  # the scale of a channel does not matter
        0.0
        >>> round(instance_norm_error(-ramp, ramp).item(), 4)  # 1 - r, with Pearson's r of each channel and image
        2.0
    """
    student, teacher = matching_pair(student, teacher, '(N, C, H, ...)')
    positions = math.prod(student.shape[2:])
    if positions < 2:
        raise ValueError(f'instance normalization needs maps of at least two positions, got {tuple(student.shape)}: of '
                         'one value it makes 0, whatever the value is. Tap a place before the pooling, or a level of '
                         'a smaller stride.')
    return half_mean_square(student, teacher, _normalization(student, positions), _normalization(teacher, positions))


def _normalization(feature: Tensor, positions: int) -> tuple[Tensor, Tensor]:
    """Factor and summand of each channel of each image that give it mean 0 and deviation 1."""
    mean, variation = mean_and_variation(feature, tuple(range(2, feature.dim())))
    scale = torch.rsqrt(variation / positions + 1e-5)
    return scale, -mean * scale


@MODELS.register_module()
class InstanceNormError(nn.Module):
    """:func:`instance_norm_error` times ``loss_weight``.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1; the authors' configs use 10 for each FPN level, which
            their tables call 5 because of the half.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.loss_weight * instance_norm_error(student, teacher)
