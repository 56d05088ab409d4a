"""Factor Transfer: a student mimics what an autoencoder makes of the teacher's feature."""
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Optional, Union

import torch
from torch import Tensor, nn

from mmfeatdistill.connectors.paraphraser import Paraphraser
from mmfeatdistill.objectives.feature_match import FeatureMatch
from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.feature_map import as_map
from mmfeatdistill.taps.reader import TappedPass


@MODELS.register_module()
class FT(FeatureMatch):
    r"""Paraphrasing Complex Network: Network Compression via Factor Transfer (arXiv 1802.04977).

    .. math:: L = \lambda \, \ell_\mathrm{FT}\bigl(T(s),\, E(t)\bigr), \qquad
        L_\mathrm{paraphrase} = \frac{1}{M} \lVert D(E(t)) - t \rVert_1

    with a translator T on the student's side, a paraphraser E, D on the teacher's, the distance
    :func:`mmfeatdistill.losses.factor_transfer`, and the resize rule of :class:`FeatureMatch`. No gradient of the first
    loss reaches the paraphraser, none of the second the student. Logged as ``loss_0``, ... and
    ``loss_paraphrase_0``, ... in the order of the taps, and of the teachers.

    The authors train the paraphraser first, for 30 epochs, and then freeze it. Here both learn in the same run; a
    warm-up of the first loss lets the paraphraser go ahead:
    ``dict(type='mmfeatdistill.ObjectiveScheduleHook', objective=..., loss='loss_0', warmup=...)``.

    Args:
        taps (list): Tap pairs, such as ``['backbone']`` (see :class:`FeatureMatch`).
        rate (float): Width of the factor over that of the teacher's feature. Defaults to 0.5, the authors'.
        loss_weight (float): Factor :math:`\lambda`. Defaults to 500, the authors'.
        paraphrase_weight (float): Factor of the second loss. Defaults to 1; as nothing else is learnt from it, only
            the learning rate of the paraphraser depends on it.
        teacher (int, optional): Which of several teachers is mimicked. Defaults to None: all of them.

    Raises:
        TypeError: ``taps`` or ``teacher`` is of another type.
        ValueError: ``taps`` is empty or does not follow the grammar, or ``rate`` is not positive.

    Examples:
        >>> from mmfeatdistill.taps.reader import TapReader
        >>> def reading(feature):
        ...     return TappedPass({'0': [feature]}, TapReader(nn.Sequential(nn.ReLU()), ['0'], 'net'), feature)
        >>> objective = FT(taps=['0'])
        >>> objective.prepare(reading(torch.zeros(1, 3, 4, 4)), [reading(torch.zeros(1, 8, 4, 4))], key='ft')
        >>> sorted(objective(reading(torch.rand(2, 3, 4, 4)), [reading(torch.rand(2, 8, 4, 4))]))
        ['loss_0', 'loss_paraphrase_0']
    """

    def __init__(self, taps: Sequence[Union[str, Mapping]], rate: float = 0.5, loss_weight: float = 500.0,
                 paraphrase_weight: float = 1.0, teacher: Optional[int] = None) -> None:
        super().__init__(taps, dict(type='FactorTransfer', loss_weight=loss_weight), dict(type='Translator'), teacher)
        if not isinstance(rate, (int, float)) or not 0 < rate < math.inf:
            raise ValueError(f'rate: expected a positive number, got {rate!r}.')
        self.rate = rate
        self.paraphrase_weight = paraphrase_weight

    def prepare(self, student: TappedPass, teachers: Sequence[TappedPass], key: str) -> None:
        """Builds a paraphraser and a translator for each pair of features (see :class:`Objective`)."""
        self.paraphrasers = nn.ModuleList()
        for feature in self._targets(teachers):
            channels = as_map(feature).shape[1]
            self.paraphrasers.append(Paraphraser(channels, max(1, round(channels * self.rate))))
        super().prepare(student, self._paraphrased(teachers)[0], key)

    def forward(self, student: TappedPass, teachers: Sequence[TappedPass]) -> dict[str, Tensor]:
        """The losses of a batch (see :class:`Objective`)."""
        factors, reconstructions = self._paraphrased(teachers)
        losses = super().forward(student, factors)
        for index, (feature, reconstruction) in enumerate(zip(self._targets(teachers), reconstructions)):
            error = (reconstruction - as_map(feature)).abs()
            # The mean of a half-precision map, taken in half precision, may overflow on its way.
            losses[f'loss_paraphrase_{index}'] = self.paraphrase_weight * error.mean(
                dtype=torch.promote_types(error.dtype, torch.float32))
        return losses

    def _paraphrased(self, teachers: Sequence[TappedPass]) -> tuple[list[TappedPass], list[Tensor]]:
        """The readings with factors in place of features, and the reconstructions of the features."""
        paraphrasers, readings, reconstructions = iter(self.paraphrasers), [], []
        for teacher in teachers:
            features: dict[str, list[Tensor]] = {}
            for pair in self.taps:
                features[pair.teacher] = []
                for feature in teacher[pair.teacher]:
                    factor, reconstruction = next(paraphrasers)(as_map(feature))
                    features[pair.teacher].append(factor.detach())
                    reconstructions.append(reconstruction)
            readings.append(replace(teacher, features=features))
        return readings, reconstructions
