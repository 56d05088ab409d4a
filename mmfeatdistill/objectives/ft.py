"""Factor Transfer: a student mimics what an autoencoder makes of the teacher's feature."""
import math
from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor, nn

from mmfeatdistill.connectors.paraphraser import Paraphraser
from mmfeatdistill.connectors.translator import Translator
from mmfeatdistill.errors import config_key
from mmfeatdistill.losses import FactorTransfer
from mmfeatdistill.objectives.base import Objective, Taps
from mmfeatdistill.objectives.pairs import match_features
from mmfeatdistill.objectives.trial import check_predictions
from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.feature_map import as_map, shape_of
from mmfeatdistill.taps.reader import TappedPass


@MODELS.register_module()
class FT(Objective):
    r"""Paraphrasing Complex Network: Network Compression via Factor Transfer (arXiv 1802.04977).

    .. math:: L = \lambda \, \ell_\mathrm{FT}\bigl(T(s),\, E(t)\bigr), \qquad
        L_\mathrm{paraphrase} = \frac{1}{M} \lVert D(E(t)) - t \rVert_1

    with a translator T on the student's side, a paraphraser E, D on the teacher's, the distance
    :func:`mmfeatdistill.losses.factor_transfer`, and the resize rule of :class:`FeatureMatch`. No gradient of the first
    loss reaches the paraphraser, none of the second the student. Logged as ``loss_0``, ... and
    ``loss_paraphrase_0``, ... in the order of the teachers, and of the taps.

    The authors train the paraphraser first, for 30 epochs, and then freeze it. Here both learn in the same run; a
    warm-up of the first loss lets the paraphraser go ahead:
    ``dict(type='mmfeatdistill.ObjectiveScheduleHook', objective=..., loss='loss_0', warmup=...)``.

    Args:
        taps (list): Tap pairs, such as ``['backbone']`` (see :class:`FeatureMatch`).
        rate (float): Width of the factor over that of the teacher's feature. Defaults to 0.5, the authors'.
        loss_weight (float): Factor :math:`\lambda`. Defaults to 500, the authors'.
        paraphrase_weight (float): Factor of the second loss. Defaults to 1; as nothing else is learned from it, only
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

    def __init__(self, taps: Taps, rate: float = 0.5, loss_weight: float = 500.0, paraphrase_weight: float = 1.0,
                 teacher: Optional[int] = None) -> None:
        super().__init__(taps, teacher)
        if not isinstance(rate, (int, float)) or not 0 < rate < math.inf:
            raise ValueError(f'rate: expected a positive number, got {rate!r}.')
        self.loss = FactorTransfer(loss_weight)
        self.rate = rate
        self.paraphrase_weight = paraphrase_weight

    def prepare(self, student: TappedPass, teachers: Sequence[TappedPass], key: str) -> None:
        """Builds a paraphraser and a translator for each pair of features (see :class:`Objective`)."""
        self.pairs = match_features(self.taps, student, teachers, key)
        self.paraphrasers, self.connectors = nn.ModuleList(), nn.ModuleList()
        for pair in self.pairs:
            own, target = (shape_of(feature) for feature in pair.of(student, teachers))
            factor = target._replace(channels=max(1, round(target.channels * self.rate)))
            self.paraphrasers.append(Paraphraser(target.channels, factor.channels))
            self.connectors.append(Translator(own, factor))
            check_predictions(pair, student, teachers[pair.teacher_index], f'{key}.taps')
        self.to(pair.student.of(student).dtype)
        with config_key(key), torch.no_grad():
            self(student, teachers)

    def forward(self, student: TappedPass, teachers: Sequence[TappedPass]) -> dict[str, Tensor]:
        losses, paraphrase = {}, {}
        for index, (pair, paraphraser, translator) in enumerate(zip(self.pairs, self.paraphrasers, self.connectors)):
            own, target = pair.of(student, teachers)
            factor, reconstruction = paraphraser(as_map(target))
            losses[f'loss_{index}'] = self.loss(*pair.connect(translator, own, factor.detach()))
            error = (reconstruction - as_map(target)).abs()
            # The mean of a half-precision map, taken in half precision, may overflow on its way.
            paraphrase[f'loss_paraphrase_{index}'] = self.paraphrase_weight * error.mean(
                dtype=torch.promote_types(error.dtype, torch.float32))
        return losses | paraphrase
