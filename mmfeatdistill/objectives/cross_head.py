"""Cross-head distillation: what the teacher's head makes of the features in the middle of the student's head."""
from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor, nn

from mmfeatdistill.connectors.conv import aligned
from mmfeatdistill.errors import config_key
from mmfeatdistill.losses import binary_divergence, quality_focal
from mmfeatdistill.objectives.base import Objective, Taps, mean_over_processes, only_teacher
from mmfeatdistill.objectives.dense_head import (
    Level,
    check_head,
    check_same_anchors,
    count_positives,
    distances_of_boxes,
    levels_of,
)
from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.dummy_batch import labeled_sample
from mmfeatdistill.taps.feature_map import shape_of
from mmfeatdistill.taps.reader import TappedPass
from mmfeatdistill.taps.tail import handing_over
from mmfeatdistill.taps.tracing import tensors_in


@MODELS.register_module()
class CrossHead(Objective):
    r"""Cross-Head Knowledge Distillation for dense detectors (CrossKD, arXiv 2306.11369).

    The student's features after the i-th convolution of each tower of its head go on in the teacher's frozen head. What
    comes out, the predictions :math:`\hat c, \hat b`, mimics the teacher's own :math:`c, b`. So the student's later
    convolutions learn from the labels alone.

    .. math:: L = \lambda_c \frac{1}{P} \sum_r \mathrm{QFL}(\hat c_r, c_r)
        + \frac{1}{\sum_r w_r} \sum_r w_r \bigl(\lambda_b D(\hat b_r, b_r) + \lambda_z D_z(\hat z_r, z_r)\bigr)

    over all anchors :math:`r` of the batch, with the quality focal loss :func:`mmfeatdistill.losses.quality_focal`, the
    number P of anchors to which the student's own assignment gives an object, and the teacher's highest score
    :math:`w_r` there. D is :func:`mmfeatdistill.losses.box_distance` of boxes, and, for heads that predict
    distributions as GFL does, the mean over the sides of :func:`mmfeatdistill.losses.distribution_divergence`;
    :math:`D_z` is :func:`mmfeatdistill.losses.binary_divergence` of the centerness, where the head has one. Logged as
    ``loss_class``, ``loss_box`` and ``loss_centerness``. P and the sum of the weights are means over all processes.

    Weights, divisors and w are chosen here; the page of the method says what the paper states. Where the widths of the
    two heads differ, a 1x1 convolution stands between them.

    Args:
        taps (list): The convolutions after which the student's features are handed over: one of each tower, with
            ``:each``, as the towers run once a level: ``['bbox_head.cls_convs.2:each', 'bbox_head.reg_convs.2:each']``.
            Of a head with towers for each level, all of them: ``'bbox_head.cls_convs.0.0'`` and so on. The towers may
            differ in depth: ``dict(student=..., teacher=...)``.
        class_weight (float): Factor :math:`\lambda_c`. Defaults to 1.
        box_weight (float): Factor :math:`\lambda_b`. Defaults to 1.
        centerness_weight (float): Factor :math:`\lambda_z`. Defaults to 1.
        teacher (int, optional): Which of several teachers is mimicked; needed where there are several.

    Raises:
        TypeError: ``taps`` or ``teacher`` is of another type.
        ValueError: ``taps`` is empty, does not follow the grammar, or names places of more than one head.

    Examples:
        >>> CrossHead(['bbox_head.cls_convs.2:each', 'bbox_head.reg_convs.2:each']).student_taps
        ['bbox_head.cls_convs.2:each', 'bbox_head.reg_convs.2:each', 'bbox_head']
    """

    runs_teacher = True

    needs_labels = True

    def __init__(self, taps: Taps, class_weight: float = 1.0, box_weight: float = 1.0, centerness_weight: float = 1.0,
                 teacher: Optional[int] = None) -> None:
        super().__init__(taps, teacher)
        self.class_weight = class_weight
        self.box_weight = box_weight
        self.centerness_weight = centerness_weight
        self._student_head, self._teacher_head = (
            _only_head([pair[side].place.path for pair in self.taps]) for side in range(2))

    @property
    def student_taps(self) -> list[str]:
        """The convolutions, and what the head predicts, by which positives are found."""
        return [*super().student_taps, self._student_head]

    @property
    def teacher_taps(self) -> list[str]:
        """The convolutions, the levels that the head reads, and what it predicts."""
        return [*super().teacher_taps, f'{self._teacher_head}:in', self._teacher_head]

    def prepare(self, student: TappedPass, teachers: Sequence[TappedPass], key: str) -> None:
        """Builds what brings widths into line, and runs the teacher's head on the student's features once.

        Args:
            student (TappedPass): The student in the dry run, on one image.
            teachers (Sequence[TappedPass]): The teacher.
            key (str): Where this objective stands in the config.

        Raises:
            ConfigError: A head is none that is known here, the two do not mean the same by a position, or the teacher's
                cannot be continued from these places alone.
        """
        teacher = only_teacher(teachers, key)
        own, theirs = self._heads(student, teacher)
        with config_key(key):
            for head, side in ((own, 'student'), (theirs, 'teacher')):
                check_head(head, side)
            check_same_anchors(own, theirs, teacher[self._teacher_head])
            wanted = levels_of(theirs, teacher[self._teacher_head])
        with config_key(f'{key}.taps'), torch.no_grad():
            self.connectors = nn.ModuleList(_connector(pair.student.text, student[pair.student], teacher[pair.teacher])
                                            for pair in self.taps)
            self.to(student.inputs.dtype)
            # The earlier part is not a number: nothing that the head predicts may notice.
            poisoned = [torch.full_like(level, torch.nan) for level in teacher[f'{self._teacher_head}:in']]
            zeros = [[torch.zeros_like(feature) for feature in teacher[pair.teacher]] for pair in self.taps]
            for level in self._continued(teacher, zeros, poisoned):
                if not all(part.isfinite().all() for part in level if part is not None):
                    raise ValueError("the teacher's head also depends on what runs beside these places; tap one "
                                     'convolution of each tower, of classes and of boxes, and of each level where '
                                     'levels have towers of their own.')
        with config_key(key):
            height, width = student.inputs.shape[-2:]
            sample = labeled_sample('mmdet', height, width, torch.Generator().manual_seed(0), False, False)
            positives = count_positives(own, student[self._student_head], [sample])
            self._losses(wanted, wanted, positives)

    def forward(self, student: TappedPass, teachers: Sequence[TappedPass]) -> dict[str, Tensor]:
        """The losses of a batch (see :class:`Objective`).

        Args:
            student (TappedPass): The student's features, and the labels of the batch.
            teachers (Sequence[TappedPass]): The teacher's predictions, without gradient.

        Returns:
            dict[str, Tensor]: The losses of classes and boxes, and of the centerness where there is one.
        """
        [teacher] = teachers
        own, theirs = self._heads(student, teacher)
        positives = count_positives(own, student[self._student_head], student.data_samples or [])
        handed = [[connector(feature) for feature in student[pair.student]]
                  for pair, connector in zip(self.taps, self.connectors)]
        cross = self._continued(teacher, handed, teacher[f'{self._teacher_head}:in'])
        return self._losses(cross, levels_of(theirs, teacher[self._teacher_head]), positives)

    def _heads(self, student: TappedPass, teacher: TappedPass) -> tuple[Any, Any]:
        return (student.model.get_submodule(self._student_head), teacher.model.get_submodule(self._teacher_head))

    def _continued(self, teacher: TappedPass, handed: Sequence[Sequence[Tensor]],
                   levels: Sequence[Tensor]) -> list[Level]:
        """What the teacher's head predicts from the features of each tap; ``levels`` only tell how often it runs."""
        head: Any = teacher.model.get_submodule(self._teacher_head)
        with handing_over(teacher.model, {pair.teacher.place.path: features
                                          for pair, features in zip(self.taps, handed)}):
            return levels_of(head, list(tensors_in(head(tuple(levels)))))

    def _losses(self, cross: Sequence[Level], wanted: Sequence[Level], positives: int) -> dict[str, Tensor]:
        scores = [level.logits.float().sigmoid().amax(1) for level in wanted]
        divisors = mean_over_processes(torch.stack([
            scores[0].new_tensor(positives), torch.stack([score.sum() for score in scores]).sum()]))
        of_classes = sum(quality_focal(own.logits, theirs.logits).sum() for own, theirs in zip(cross, wanted))
        losses = dict(loss_class=self.class_weight * of_classes / divisors[0].clamp_min(1),
                      loss_box=self.box_weight * sum(
                          (score * distances_of_boxes(own.boxes, theirs.boxes)).sum()
                          for own, theirs, score in zip(cross, wanted, scores)) / divisors[1])
        if wanted[0].centerness is not None:
            losses['loss_centerness'] = self.centerness_weight * sum(
                (score * binary_divergence(own.centerness, theirs.centerness)).sum()
                for own, theirs, score in zip(cross, wanted, scores)) / divisors[1]
        return losses


def _only_head(paths: Sequence[str]) -> str:
    heads = list(dict.fromkeys(path.partition('.')[0] for path in paths))
    if len(heads) != 1 or any('.' not in path for path in paths):
        raise ValueError(f'taps: expected convolutions inside of one head, as in \'bbox_head.cls_convs.2:each\', got '
                         f'{", ".join(map(repr, paths))}.')
    return heads[0]


def _connector(tap: str, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> nn.Module:
    """What the student's features go through, the same on all levels."""
    own, theirs = ([shape_of(feature) for feature in features] for features in (student, teacher))
    if [shape[1:] for shape in own] != [shape[1:] for shape in theirs]:
        sizes = ['; '.join(f'{shape.height} x {shape.width}' for shape in shapes) for shapes in (own, theirs)]
        raise ValueError(f"{tap!r} gives maps of {sizes[0]} for one image, and the teacher's of {sizes[1]}; the levels "
                         'of the two heads have to agree.')
    return aligned(own[0], theirs[0])
