"""Targets of mean 0 and variance 1, by what the teacher's features are on training images."""
import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from mmengine.dist import all_gather
from torch import Tensor, nn

from mmfeatdistill.errors import ConfigError, config_key
from mmfeatdistill.objectives.pairs import FeaturePair
from mmfeatdistill.objectives.statistics import NeedsStatistics
from mmfeatdistill.taps.feature_map import as_map, shape_of
from mmfeatdistill.taps.reader import TappedPass

Kind = Literal['isotropic', 'channel']
"""One scale for all channels, or one for each."""


def channel_moments(feature: Tensor) -> Tensor:
    """What of a feature tells the mean and the variance of its channels.

    Args:
        feature (Tensor): Shape (N, C), (N, L, C) or (N, C, H, W), not empty.

    Returns:
        Tensor: Shape (3, C), float64: the number of values, their mean, and the sum of their squared deviations from
        it. Deviations, as the mean of the squares minus the square of the mean has no digits left where a mean is
        large.

    Examples:
        >>> channel_moments(torch.tensor([[1.0, 5.0], [3.0, 5.0]])).tolist()
        [[2.0, 2.0], [2.0, 5.0], [2.0, 0.0]]
    """
    values = as_map(feature).double()
    mean = values.mean((0, 2, 3))
    deviations = (values - mean[:, None, None]).square().sum((0, 2, 3))
    return torch.stack([torch.full_like(mean, values[:, 0].numel()), mean, deviations])


def joined_moments(parts: Tensor) -> Tensor:
    """The moments of several features together.

    Args:
        parts (Tensor): Those of each, shape (K, 3, C); all 0 of one that has no values.

    Returns:
        Tensor: Shape (3, C), as :func:`channel_moments` of all of them gives it.

    Examples:
        >>> first, second = torch.tensor([[1.0]]), torch.tensor([[2.0], [6.0]])
        >>> joined_moments(torch.stack([channel_moments(first), channel_moments(second)])).flatten().tolist()
        [3.0, 3.0, 14.0]
    """
    count, mean, deviations = parts.unbind(1)
    joined = (count * mean).sum(0) / count.sum(0).clamp(min=1)
    return torch.stack([count.sum(0), joined, (deviations + count * (mean - joined).square()).sum(0)])


def mean_and_scale(moments: Tensor, kind: Kind) -> tuple[Tensor, Tensor]:
    r"""What is subtracted from a feature, and what the rest is divided by.

    .. math:: \phi = \sqrt{\tfrac{1}{C} \sum_c \sigma_c^2} \quad\text{or}\quad \phi_c = \sigma_c

    with the variance :math:`\sigma_c^2` over all values of a channel (divided by their number). A channel that does not
    vary, beyond the rounding of its mean in float32, has the scale 1 of its own, and so becomes 0.

    Args:
        moments (Tensor): See :func:`channel_moments`.
        kind (str): ``'isotropic'`` for the first, ``'channel'`` for the second.

    Returns:
        tuple[Tensor, Tensor]: Of shape (C,) the mean; of shape (1,) or (C,) the scale.

    Raises:
        ValueError: No channel varies, or a value was not finite.

    Examples:
        >>> moments = torch.tensor([[4.0] * 4, [5.0] * 4, [0.0, 0.0, 0.0, 64.0]])
        >>> [mean_and_scale(moments, kind)[1].tolist() for kind in ('isotropic', 'channel')]
        [[2.0], [1.0, 1.0, 1.0, 4.0]]
    """
    count, mean, deviations = moments
    if not moments.isfinite().all():
        raise ValueError("the teacher's feature is not finite on all training images.")
    variance = deviations / count.clamp(min=1)
    varies = variance.sqrt() > torch.finfo(torch.float32).eps * mean.abs()
    if not varies.any():
        raise ValueError(f"the teacher's feature is the same in all its {count.max():.0f} values on training images, "
                         'so nothing can be learned from it; look at the tap and at the checkpoint.')
    if kind == 'isotropic':
        return mean, variance.mean(0, keepdim=True).sqrt()
    return mean, torch.where(varies, variance, 1).sqrt()


def standardized(feature: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    r"""Standardizes a feature: :math:`(t - \mu) / \phi`.

    Args:
        feature (Tensor): Shape (N, C), (N, L, C) or (N, C, H, W).
        mean (Tensor): Shape (C,).
        scale (Tensor): Shape (1,) or (C,).

    Returns:
        Tensor: Of the feature's shape.

    Examples:
        >>> standardized(torch.tensor([[3.0, 5.0]]), torch.tensor([1.0, 1.0]), torch.tensor([2.0]))
        tensor([[1., 2.]])
    """
    positions = (1, 1) if feature.dim() == 4 else ()
    return (feature - mean.reshape(-1, *positions)) / scale.reshape(-1, *positions)


class Standardization(NeedsStatistics, nn.Module):
    """Standardizes what each pair of features has of a teacher, by statistics that training images tell first.

    They are those of all processes, whoever has seen which image, and are saved for resuming.

    Args:
        kind (str): See :func:`mean_and_scale`.
        images (float): How many training images are looked at.
        pairs (Sequence[FeaturePair]): What is matched.
        teachers (Sequence[TappedPass]): Each teacher that is read, in the dry run.
        key (str): Of the option in the config.

    Raises:
        ConfigError: A teacher's feature is what it predicts.
    """

    def __init__(self, kind: Kind, images: float, pairs: Sequence[FeaturePair], teachers: Sequence[TappedPass],
                 key: str) -> None:
        super().__init__()
        self._kind, self._images, self._pairs, self._key = kind, images, pairs, key
        for pair in pairs:
            if pair.teacher.is_in_head and pair.teacher.tap in teachers[pair.teacher_index].reader.predictions:
                raise ConfigError(
                    f"{key}: the teacher's {pair.teacher.tap!r} is what it predicts: classes or boxes, which mean "
                    'something else in other units. Standardize features, such as those of the neck; of logits, the '
                    "loss does it, as in loss=dict(type='KLDivergence', standardize=True).")
        self.scales = nn.ModuleList(_Scale(shape_of(pair.target(teachers)).channels, kind) for pair in pairs)

    @property
    def images_wanted(self) -> float:
        """As many as were asked for, 0 once the statistics are known."""
        return self._images if any(scale.is_unknown() for scale in self.scales) else 0

    def update_statistics(self, teachers: Sequence[TappedPass]) -> None:
        for scale, pair in zip(self.scales, self._pairs):
            scale.update(pair.target(teachers))

    def finish_statistics(self) -> None:
        for scale, pair in zip(self.scales, self._pairs):
            with config_key(f'{self._key}: {pair.teacher}'):
                scale.finish(self._kind)

    def forward(self, target: Tensor, index: int) -> Tensor:
        """Standardizes a teacher's feature.

        Args:
            target (Tensor): The feature.
            index (int): Of the pair.

        Returns:
            Tensor: Of its shape.

        Raises:
            ConfigError: No images were looked at.
        """
        self.check_statistics(
            f"{self._key}: {self._kind!r} needs the mean and variance of the teacher's features on training images, "
            "which were not looked at; add dict(type='mmfeatdistill.StatisticsHook') to custom_hooks.")
        return standardized(target, self.scales[index].mean, self.scales[index].scale)

    def check_loss(self, loss: nn.Module, teachers: Sequence[TappedPass]) -> None:
        """Refuses a loss that sees no difference, as it normalizes the teacher's feature itself.

        Args:
            loss (nn.Module): Of a student's and a teacher's feature, that takes the features of the dry run.
            teachers (Sequence[TappedPass]): Each teacher that is read, in the dry run.

        Raises:
            ConfigError: On random features it gives the same.
        """
        generator = torch.Generator().manual_seed(0)
        target = self._pairs[0].target(teachers)
        channels, *size = shape_of(target) if target.dim() != 2 else target.shape[1:]
        shape = (4, channels, *(max(side, 4) for side in size))  # of one position, some losses see nothing at all
        own, other = (torch.randn(shape, generator=generator) for _ in range(2))
        mean, scale = torch.randn(2, channels, generator=generator)
        scale = scale.exp() if self._kind == 'channel' else torch.tensor([3.0])
        with config_key(f'{self._key.rpartition(".")[0]}.loss'), torch.no_grad():
            before, after = loss(own, other), loss(own, standardized(other, mean, scale))
        if torch.isclose(before, after, rtol=1e-3):
            raise ConfigError(f"{self._key}: {type(loss).__name__} gives the same whatever the mean and scale of the "
                              "teacher's channels, as it normalizes them itself; leave the option out.")


class _Scale(nn.Module):
    """The mean and scale of one feature, NaN until they are known."""

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int, kind: Kind) -> None:
        super().__init__()
        self.register_buffer('mean', torch.full((channels,), math.nan))
        self.register_buffer('scale', torch.full((1 if kind == 'isotropic' else channels,), math.nan))
        self._moments = torch.zeros(3, channels, dtype=torch.float64)

    def is_unknown(self) -> bool:
        return bool(self.scale.isnan().any())

    def update(self, feature: Tensor) -> None:
        self._moments = joined_moments(torch.stack([self._moments, channel_moments(feature).cpu()]))

    def finish(self, kind: Kind) -> None:
        """Sets what all processes have seen."""
        mean, scale = mean_and_scale(joined_moments(torch.stack(all_gather(self._moments))), kind)
        self.mean.copy_(mean)
        self.scale.copy_(scale)


def check_standardize(kind: object, images: object) -> None:
    """Raises a ValueError at what a config cannot ask for."""
    if kind is not None and kind not in get_args(Kind):
        raise ValueError(f"standardize: expected 'isotropic' or 'channel', got {kind!r}.")
    if not isinstance(images, (int, float)) or not images > 0:
        raise ValueError(f'standardize_images: expected a positive number, got {images!r}.')
