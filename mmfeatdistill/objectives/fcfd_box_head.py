"""Function-consistent feature distillation for two-stage detectors: the box head is the later part."""
from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor, nn

from mmfeatdistill.connectors import Bridge
from mmfeatdistill.errors import config_key
from mmfeatdistill.losses import appearance, kl_divergence
from mmfeatdistill.objectives.base import Objective, Taps, only_teacher
from mmfeatdistill.objectives.pairs import match_features
from mmfeatdistill.objectives.roi import run_box_head
from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.feature_map import same_size, shape_of
from mmfeatdistill.taps.isolation import untracked_statistics
from mmfeatdistill.taps.reader import TappedPass

_ROIS = 'roi_head.bbox_roi_extractor:in[-1]'
_LOGITS = 'roi_head.bbox_head.fc_cls'
_OFFSETS = 'roi_head.bbox_head.fc_reg'


@MODELS.register_module()
class FCFDBoxHead(Objective):
    r"""Pulls FPN levels to the teacher's, and what the box heads of both networks make of either's levels.

    With the levels :math:`s^l, t^l`, bridges :math:`b^l` to the teacher's space and :math:`c^l` to the student's, and
    the box heads :math:`S, T` on the student's sampled proposals:

    .. math:: L_\mathrm{app} = \sum_l \mathrm{mse}\bigl(b^l(s^l), t^l\bigr)

    .. math:: L_\mathrm{func} = \sum_{h \in \{S(s),\, T(b(s)),\, S(c(t))\}}
        \tau^2 \, \mathrm{KL}\bigl(p_\tau(T(t)) \,\Vert\, p_\tau(h)\bigr) + \mathrm{mse}\bigl(d(h), d(T(t))\bigr)

    with the class probabilities :math:`p` and the box deltas :math:`d`. Logged as ``loss_appearance``, ``loss_class``
    and ``loss_box``. Without a proposal the last two are zero.

    Source: FCFD (ICLR 2023, arXiv 2304.11832) and its authors' code for detection. For their "inherit" variant see
    :class:`mmfeatdistill.engine.hooks.InheritTeacherWeightsHook`. Of a cascade as teacher the first stage is run.

    Args:
        taps (list): The levels, ``['neck']``.
        tau (float): Temperature of the class probabilities. Defaults to 1, as the authors.
        appearance_weight (float): Defaults to 1, as the authors.
        class_weight (float): Factor of the divergences. Defaults to 1, as the authors.
        box_weight (float): Factor of the errors of the deltas. Defaults to 1, as the authors; 0 leaves them out, where
            the two networks predict them in other forms.
        teacher (int, optional): Which of several teachers is mimicked; needed where there are several.
    """

    runs_teacher = True
    networks = 'two-stage detectors, such as Faster R-CNN, on both sides'
    needs_labels = True

    def __init__(self, taps: Taps, tau: float = 1.0, appearance_weight: float = 1.0,
                 class_weight: float = 1.0, box_weight: float = 1.0, teacher: Optional[int] = None) -> None:
        super().__init__(taps, teacher)
        self.tau = tau
        self.appearance_weight = appearance_weight
        self.class_weight = class_weight
        self.box_weight = box_weight

    @property
    def student_taps(self) -> list[str]:
        """The levels, the sampled proposals, and what the student's own box head makes of them."""
        return [*super().student_taps, _ROIS, _LOGITS, _OFFSETS]

    def prepare(self, student: TappedPass, teachers: Sequence[TappedPass], key: str) -> None:
        """Builds the bridges and tries the box heads on each other's levels (see :class:`Objective`)."""
        teacher = only_teacher(teachers, key)
        self.pairs = match_features(self.taps, student, teachers, key)
        with config_key(f'{key}.taps'):
            own, targets = self._levels(student, teachers)
            self.to_teacher = nn.ModuleList(Bridge(shape_of(s), shape_of(t)) for s, t in zip(own, targets))
            read = student.model.roi_head.bbox_roi_extractor.num_inputs
            self.to_student = nn.ModuleList(Bridge(shape_of(t), shape_of(s)) for s, t in zip(own[:read], targets))
        with config_key(key), torch.no_grad():
            mimicked = run_box_head(teacher.model, targets, student[_ROIS][0])
            _check_width(student[_LOGITS][0], mimicked.logits, 'class logits, background included')
            if self.box_weight:
                _check_width(student[_OFFSETS][0], mimicked.offsets,
                             'box deltas (box_weight=0 leaves them out)')
            kl_divergence(student[_LOGITS][0], mimicked.logits, tau=self.tau)

    def forward(self, student: TappedPass, teachers: Sequence[TappedPass]) -> dict[str, Tensor]:
        [teacher] = teachers
        own, targets = self._levels(student, teachers)
        [rois] = student[_ROIS]
        bridged = [same_size(bridge(s), t)[0] for bridge, s, t in zip(self.to_teacher, own, targets)]
        returned = [same_size(bridge(t), s)[0] for bridge, s, t in zip(self.to_student, own, targets)]
        with torch.no_grad():
            mimicked = run_box_head(teacher.model, targets, rois)
        through_teacher = run_box_head(teacher.model, bridged, rois)
        with untracked_statistics(student.model.roi_head):
            through_student = run_box_head(student.model, returned, rois)
        logits = [student[_LOGITS][0], through_teacher.logits, through_student.logits]
        offsets = [student[_OFFSETS][0], through_teacher.offsets, through_student.offsets]
        losses = dict(
            loss_appearance=self.appearance_weight * appearance(bridged, targets, pool_last=False),
            loss_class=self.class_weight * sum(kl_divergence(z, mimicked.logits, tau=self.tau) for z in logits))
        if self.box_weight:
            losses['loss_box'] = self.box_weight * appearance(
                offsets, [mimicked.offsets] * len(offsets), pool_last=False)
        return losses

    def _levels(self, student: TappedPass, teachers: Sequence[TappedPass]) -> tuple[list[Tensor], list[Tensor]]:
        own, targets = zip(*(pair.of(student, teachers) for pair in self.pairs))
        return list(own), list(targets)


def _check_width(student: Tensor, teacher: Tensor, what: str) -> None:
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(f"the student's box head gives {student.shape[1]} {what}, and the teacher's "
                         f'{teacher.shape[1]}; they cannot be compared.')
