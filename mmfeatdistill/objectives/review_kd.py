"""Knowledge review: each level of a student learns together with the deeper ones."""
from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor, nn

from mmfeatdistill.connectors.attention_fusion import AttentionFusion
from mmfeatdistill.errors import config_key
from mmfeatdistill.losses import HierarchicalContext
from mmfeatdistill.objectives.base import Objective, Taps
from mmfeatdistill.objectives.pairs import FeaturePair, match_features
from mmfeatdistill.objectives.trial import check_predictions
from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.feature_map import as_map, shape_of
from mmfeatdistill.taps.isolation import statistics_for
from mmfeatdistill.taps.reader import TappedPass


@MODELS.register_module()
class ReviewKD(Objective):
    r"""Distilling Knowledge via Knowledge Review (arXiv 2104.09044).

    .. math:: L = \lambda \sum_l \ell_\mathrm{HCL}(y_l, t_l), \qquad (y_l, f_l) = F_l(s_l, f_{l+1})

    from the deepest level up, with one :class:`mmfeatdistill.connectors.attention_fusion.AttentionFusion` F for each
    level, and the hierarchical context loss :func:`mmfeatdistill.losses.hierarchical_context`. So the gradient of a
    level's loss reaches this level and all deeper ones. Logged as ``loss_0``, ``loss_1``, ...: in the order of the
    teachers, of which each has a chain of its own, and of the levels, from the finest to the deepest.

    The authors take all levels of an FPN; of a classifier the end of each stage in front of its ReLU, and the pooled
    vector as a map of one position. On CIFAR-100 the weight rises over 20 epochs,
    ``dict(type='ObjectiveScheduleHook', objective='review', warmup=20)``, and the teacher normalizes by the statistics
    of the batch, ``teacher=dict(batch_statistics=True, ...)``.

    Args:
        taps (list): Tap pairs from the finest level to the deepest: ``['neck']`` of a detector, or
            ``['backbone.layer1:pre', ..., 'backbone.layer4:pre', 'neck']`` of a classifier.
        loss_weight (float): Factor :math:`\lambda`. Defaults to 1, the authors' for most pairs on COCO and ImageNet.
        mid_channels (int, optional): Width of what is handed on. Defaults to None: that of the student's deepest level,
            at most 512, as in the authors' code for CIFAR-100; theirs are 256 of an FPN, which is the same, 512
            for ResNet-18 and 256 for MobileNet.
        teacher (int, optional): Which of several teachers is mimicked. Defaults to None: all of them.

    Raises:
        TypeError: ``taps`` or ``teacher`` is of another type.
        ValueError: ``taps`` is empty or does not follow the grammar, or ``mid_channels`` is no positive number.

    Examples:
        >>> from mmfeatdistill.taps.reader import TapReader
        >>> def reading(*features):
        ...     reader = TapReader(nn.Sequential(nn.ReLU()), ['0'], 'net')
        ...     return TappedPass({'0': list(features)}, reader, features[0])
        >>> objective = ReviewKD(taps=['0'])
        >>> student = reading(torch.rand(2, 3, 8, 8), torch.rand(2, 6, 4, 4))
        >>> teacher = reading(torch.rand(2, 4, 8, 8), torch.rand(2, 8, 4, 4))
        >>> one = [reading(*(feature[:1] for feature in passed['0'])) for passed in (student, teacher)]
        >>> objective.prepare(one[0], [one[1]], key='model.objectives.review')
        >>> sorted(objective(student, [teacher]))
        ['loss_0', 'loss_1']
    """

    def __init__(self, taps: Taps, loss_weight: float = 1.0, mid_channels: Optional[int] = None,
                 teacher: Optional[int] = None) -> None:
        super().__init__(taps, teacher)
        if mid_channels is not None and (not isinstance(mid_channels, int) or mid_channels < 1):
            raise ValueError(f'mid_channels: expected a positive integer, got {mid_channels!r}.')
        self.loss = HierarchicalContext(loss_weight)
        self.mid_channels = mid_channels

    def prepare(self, student: TappedPass, teachers: Sequence[TappedPass], key: str) -> None:
        """Builds a chain of fusions for each teacher, and tries it (see :class:`Objective`).

        Args:
            student (TappedPass): The student in the dry run, on one image.
            teachers (Sequence[TappedPass]): Each teacher that is read.
            key (str): Where this objective stands in the config.

        Raises:
            ConfigError: The features cannot be matched, are tokens, or do not go from the finest to the deepest.
        """
        self.pairs = match_features(self.taps, student, teachers, key)
        self.fusions = nn.ModuleList()
        for index in range(len(teachers)):
            levels = [pair for pair in self.pairs if pair.teacher_index == index]
            with config_key(f'{key}.taps'):
                _check_levels(levels, student, teachers)
            shapes = [[shape_of(feature) for feature in pair.of(student, teachers)] for pair in levels]
            mid = self.mid_channels or min(512, shapes[-1][0].channels)
            self.fusions += [AttentionFusion(own.channels, mid, target.channels, fuses=pair is not levels[-1])
                             for pair, (own, target) in zip(levels, shapes)]
        for pair in self.pairs:
            check_predictions(pair, student, teachers[pair.teacher_index], f'{key}.taps')
        self.to(self.pairs[0].student.of(student).dtype)
        self.eval()
        with config_key(key), torch.no_grad():
            self(student, teachers)
        self.train()

    def forward(self, student: TappedPass, teachers: Sequence[TappedPass]) -> dict[str, Tensor]:
        """The losses of a batch (see :class:`Objective`).

        Args:
            student (TappedPass): The student's levels.
            teachers (Sequence[TappedPass]): Those of each teacher that is read, without gradient.

        Returns:
            dict[str, Tensor]: One for each level.
        """
        losses: dict[str, Tensor] = {}
        deeper: Optional[Tensor] = None
        for index in reversed(range(len(self.pairs))):
            pair, fusion = self.pairs[index], self.fusions[index]
            own, target = (as_map(feature) for feature in pair.of(student, teachers))
            # The deepest fusion of a teacher has no use for what the next teacher's finest handed on.
            with statistics_for(fusion, own):
                output, deeper = fusion(own, deeper, target.shape[2:])
            losses[f'loss_{index}'] = self.loss(output, target)
        return dict(reversed(losses.items()))


def _check_levels(levels: Sequence[FeaturePair], student: TappedPass, teachers: Sequence[TappedPass]) -> None:
    for pair in levels:
        for side, feature in zip(('student', 'teacher'), pair.of(student, teachers)):
            if feature.dim() == 3:
                raise ValueError(f"the {side}'s {getattr(pair, side).tap!r} gives tokens {tuple(feature.shape[1:])} "
                                 'that are no grid over the image, and a fusion looks at neighboring positions; tap '
                                 'places that give maps.')
    for finer, deeper in zip(levels, levels[1:]):
        sizes = [shape_of(pair.student.of(student))[1:] for pair in (finer, deeper)]
        if any(fine < deep for fine, deep in zip(*sizes)):
            raise ValueError(f'levels go from the finest to the deepest, and of one image {finer.student} has '
                             f'{sizes[0][0]} x {sizes[0][1]} positions and {deeper.student}, which comes after it, '
                             f'{sizes[1][0]} x {sizes[1][1]}; turn the list around.')
