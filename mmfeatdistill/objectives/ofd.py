"""Feature overhaul: pre-activations, matched where the teacher is active or the student is too high."""
import math
from collections.abc import Iterator, Sequence
from typing import Any, Optional

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from mmfeatdistill.errors import config_key
from mmfeatdistill.losses import overhaul_margin, partial_l2
from mmfeatdistill.objectives.base import Objective, Taps
from mmfeatdistill.objectives.pairs import FeaturePair, build_connectors, match_features
from mmfeatdistill.objectives.statistics import NeedsStatistics
from mmfeatdistill.objectives.trial import try_losses
from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.dry_run import trace
from mmfeatdistill.taps.feature_map import as_map, shape_of
from mmfeatdistill.taps.reader import TappedPass
from mmfeatdistill.taps.tracing import feeding_norms


@MODELS.register_module()
class OFD(NeedsStatistics, Objective):
    r"""A Comprehensive Overhaul of Feature Distillation (arXiv 1904.01866).

    .. math:: L_l = \lambda \, \frac{w_l}{N} \sum_{n,c,i} d\bigl(R(g_l(s_l)),\, \max(t_l, m_l)\bigr),
        \qquad w_l = 2^{-(n - l - 1)}

    for each matched feature :math:`l = 0, \dots, n - 1` of a teacher, with the partial distance :math:`d` of
    :func:`mmfeatdistill.losses.partial_l2`, a connector :math:`g_l`, the resize rule :math:`R` of
    :class:`FeatureMatch`, and one margin :math:`m_{lc} \le 0` a channel. The loss is exactly 0 where the student
    equals the teacher, or the teacher after its margin ReLU. Logged as ``loss_0``, ``loss_1``, ...

    The features should be pre-activations, as ``'backbone.layer1:pre'`` gives them. A margin is the mean of the
    negative part of a channel. Where a batch normalization feeds the teacher's tap it tells the margin (see
    :func:`mmfeatdistill.losses.overhaul_margin`). Elsewhere, as at the outputs of most FPNs and transformers, it is
    estimated on training images before the first iteration, which needs
    ``dict(type='mmfeatdistill.StatisticsHook')`` in ``custom_hooks``; a channel that was never negative then has the
    margin 0. Estimated margins are saved for resuming, and not estimated again.

    The authors let the teacher normalize by the statistics of the batch: ``teacher=dict(batch_statistics=True, ...)``.

    Args:
        taps (list): Tap pairs, from the first stage to the last (see :class:`FeatureMatch`).
        connector (dict, optional): Config of a connector; widths are found. Defaults to ``ConvBN``, the authors'.
        loss_weight (float): Factor :math:`\lambda`. Defaults to 1e-4, the authors' on ImageNet; theirs on CIFAR-100
            is 1e-3, and 1e-5 for segmentation.
        stage_weights (list[float], optional): One :math:`w_l` for each feature. Defaults to None: as above.
        margin_images (float): How many training images margins are estimated on, where they are. Defaults to 512.
        teacher (int, optional): Which of several teachers is mimicked. Defaults to None: all of them.

    Raises:
        TypeError: ``taps``, ``stage_weights`` or ``teacher`` is of another type.
        ValueError: ``taps`` is empty or does not follow the grammar, or ``margin_images`` is not positive.

    Examples:
        >>> from mmfeatdistill.taps.reader import TapReader
        >>> def reading(feature):
        ...     return TappedPass({'0': [feature]}, TapReader(nn.Sequential(nn.ReLU()), ['0'], 'teacher'), feature)
        >>> objective = OFD(taps=['0'], connector=dict(type='Identity'), loss_weight=1)
        >>> one = reading(torch.tensor([[[[-4.0, -2.0, 5.0]]]]))
        >>> objective.prepare(one, [one], key='model.objectives.ofd')
        >>> objective.update_statistics([one])
        >>> objective.finish_statistics()  # estimates the margin -3
        >>> objective(reading(torch.tensor([[[[-5.0, -1.0, 4.0]]]])), [one])
        {'loss_0': tensor(2.)}
    """

    def __init__(self, taps: Taps, connector: Optional[dict] = None, loss_weight: float = 1e-4,
                 stage_weights: Optional[Sequence[float]] = None, margin_images: float = 512,
                 teacher: Optional[int] = None) -> None:
        super().__init__(taps, teacher)
        if stage_weights is not None and not _are_numbers(stage_weights):
            raise TypeError(f'stage_weights: expected a list of numbers, one for each feature, got {stage_weights!r}.')
        if not _are_numbers([margin_images]) or not margin_images > 0:
            raise ValueError(f'margin_images: expected a positive number, got {margin_images!r}.')
        self.loss = _PartialL2(loss_weight)
        self._connector = connector or dict(type='ConvBN')
        self._given_weights = stage_weights
        self._margin_images = margin_images

    def prepare(self, student: TappedPass, teachers: Sequence[TappedPass], key: str) -> None:
        """Builds the connectors, and finds the margins or what they are to be estimated for (see :class:`Objective`).

        Args:
            student (TappedPass): The student in the dry run, on one image.
            teachers (Sequence[TappedPass]): Each teacher that is read.
            key (str): Where this objective stands in the config.

        Raises:
            ConfigError: The features cannot be matched, or there are more or fewer ``stage_weights`` than features.
        """
        self._key = key
        self.pairs = match_features(self.taps, student, teachers, key)
        self.connectors = build_connectors(self._connector, self.pairs, student, teachers, key)
        self.margins = nn.ModuleList()
        self.stage_weights: list[float] = []
        for index, teacher in enumerate(teachers):
            pairs = [pair for pair in self.pairs if pair.teacher_index == index]
            for pair, norm in zip(pairs, _norms(teacher, pairs)):
                self.margins.append(_Margin(shape_of(pair.target(teachers)).channels, norm))
            with config_key(f'{key}.stage_weights'):
                self.stage_weights += _stage_weights(len(pairs), self._given_weights)
        # With a plain ReLU, as margins may not be known yet.
        try_losses(lambda own, target: self.loss(own, target, margin=target.new_zeros(target.shape[1])),
                   self.connectors, self.pairs, student, teachers, key)

    @property
    def images_wanted(self) -> float:
        """``margin_images`` while there are margins to be estimated, 0 afterwards."""
        return self._margin_images if any(margin.is_unknown() for margin in self._estimated()) else 0

    def update_statistics(self, teachers: Sequence[TappedPass]) -> None:
        for margin, pair in zip(self.margins, self.pairs):
            if margin.is_estimated:
                margin.update(as_map(pair.target(teachers)))

    def finish_statistics(self) -> None:
        for margin in self._estimated():
            margin.finish()

    def forward(self, student: TappedPass, teachers: Sequence[TappedPass]) -> dict[str, Tensor]:
        """The losses of a batch (see :class:`Objective`).

        Args:
            student (TappedPass): The student's features.
            teachers (Sequence[TappedPass]): Those of each teacher that is read, without gradient.

        Returns:
            dict[str, Tensor]: ``loss_0``, ``loss_1``, ... in the order of the teachers, and of the taps.

        Raises:
            ConfigError: Margins had to be estimated and were not.
        """
        self.check_statistics(
            f'{self._key}: no batch normalization tells all margins of the teacher at '
            f'{[pair.teacher.text for pair in self.taps]}, and they have not been estimated; add '
            "dict(type='mmfeatdistill.StatisticsHook') to custom_hooks.")
        stages = zip(self.stage_weights, self.margins, self.connectors, self.pairs)
        return {f'loss_{i}': weight * self.loss(*pair.connect(connector, *pair.of(student, teachers)),
                                                margin=margin.value)
                for i, (weight, margin, connector, pair) in enumerate(stages)}

    def _estimated(self) -> Iterator['_Margin']:
        return (margin for margin in self.margins if margin.is_estimated)


def _norms(teacher: TappedPass, pairs: Sequence[FeaturePair]) -> Iterator[Optional[nn.Module]]:
    """The normalization that tells the distribution of each of the teacher's features, or None."""
    calls = trace(teacher.model, size=teacher.inputs.shape[-1])
    taps = {tap.text: tap for tap in teacher.reader.taps}
    for pair in pairs:
        tap = taps[pair.teacher.tap]
        found = feeding_norms(calls, tap.place.path, tap.place.is_input)
        count = len(teacher[tap.text])  # more than the last call gave, where each call counts
        names = tap.select(found * (count if tap.is_each else 1)) if found else [None] * count
        name = names[pair.teacher.position]
        yield None if name is None else teacher.model.get_submodule(name)


class _PartialL2(nn.Module):
    """:func:`partial_l2` divided by the batch size, times ``loss_weight``."""

    def __init__(self, loss_weight: float) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor, *, margin: Tensor) -> Tensor:
        return self.loss_weight * partial_l2(student, teacher, margin=margin) / max(student.shape[0], 1)


class _Margin(nn.Module):
    """The margins of the channels of one feature: told by a normalization, or NaN until they are estimated."""

    value: Tensor

    def __init__(self, channels: int, norm: Optional[nn.Module]) -> None:
        super().__init__()
        self.is_estimated = norm is None
        value = torch.full((channels,), math.nan) if norm is None else overhaul_margin(norm.weight, norm.bias)
        # What a normalization tells belongs to the teacher, and is not saved with the student.
        self.register_buffer('value', value, persistent=self.is_estimated)
        self._sums = torch.zeros(2, channels, dtype=torch.float64)

    def is_unknown(self) -> bool:
        return bool(self.value.isnan().any())

    def update(self, feature: Tensor) -> None:
        """Adds the sum and the number of the negative values of each channel."""
        negative = feature < 0
        total = feature.masked_fill(~negative, 0).sum((0, 2, 3), dtype=torch.float64)
        self._sums += torch.stack([total, negative.sum((0, 2, 3))]).cpu()

    def finish(self) -> None:
        """Sets the means of what all processes have seen."""
        all_reduce(self._sums)
        total, count = self._sums
        self.value.copy_(total / count.clamp(min=1))


def _are_numbers(values: Any) -> bool:
    return isinstance(values, Sequence) and all(isinstance(value, (int, float)) for value in values)


def _stage_weights(count: int, given: Optional[Sequence[float]]) -> list[float]:
    if given is None:
        return [0.5 ** (count - index - 1) for index in range(count)]
    if len(given) != count:
        raise ValueError(f'expected {count} numbers, one for each matched feature, got {len(given)}: {list(given)}.')
    return list(given)
