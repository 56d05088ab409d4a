"""Mimicking the box features of two-stage detectors by locality-sensitive hashing."""
from collections.abc import Sequence
from dataclasses import replace
from typing import Optional, Union

import torch
from torch import Tensor

from mmfeatdistill.errors import config_key
from mmfeatdistill.objectives.base import TapPair
from mmfeatdistill.objectives.lsh import LSH, Kind, weight_std
from mmfeatdistill.objectives.roi import box_classifier, box_feature
from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.reader import TappedPass

_BOX_FEATURE = 'roi_head.bbox_head.fc_cls:in'
_EXTRACTED = 'roi_head.bbox_roi_extractor:in'
_LEVELS = 'neck'


@MODELS.register_module()
class LSHRoI(LSH):
    """:class:`LSH` of the box heads of two-stage detectors, on the proposals that the student samples.

    Matched is what ``roi_head.bbox_head.fc_cls`` reads: the last shared linear layer after its ReLU. The student's is
    that of its own pass. The teacher's box head, of a cascade the first stage's, runs on the teacher's ``neck`` and the
    student's proposals up to there. Without proposals the loss is 0.

    The authors saw trainings of detectors with ``with_l2=False`` turn to NaN: clip the gradients.

    Args:
        hashes (int, optional): Number of hashes. Defaults to None: four times the width, as the authors.
        kind (str): See :class:`LSH`.
        with_l2 (bool): See :class:`LSH`.
        bias (str): ``'zero'``, as the authors; nothing else is possible. Defaults to ``'zero'``.
        std (float | str): See :class:`LSH`; the classifier is the teacher's ``fc_cls``.
        loss_weight (float): Defaults to 7, the authors'.
        connector (dict, optional): See :class:`LSH`.
        seed (int): See :class:`LSH`.
        teacher (int, optional): Which of several teachers is mimicked. Defaults to None: all of them.

    Raises:
        ValueError: ``bias`` is another, or as :class:`LSH` raises it.
    """

    runs_teacher = True
    networks = 'two-stage detectors, such as Faster R-CNN, on both sides'

    def __init__(self, hashes: Optional[int] = None, kind: Kind = 'bce', with_l2: bool = True, bias: str = 'zero',
                 std: Union[float, str] = 'classifier', loss_weight: float = 7.0, connector: Optional[dict] = None,
                 seed: int = 0, teacher: Optional[int] = None) -> None:
        if bias != 'zero':
            raise ValueError(f"bias: {bias!r} is that of features on training images before the first iteration, when "
                             "there are no proposals of a trained student yet; only 'zero' is possible.")
        super().__init__([_BOX_FEATURE], hashes, kind, with_l2, 'zero', std, loss_weight=loss_weight,
                         connector=connector, seed=seed, teacher=teacher)

        self.needs_labels = True

    @property
    def student_taps(self) -> list[str]:
        """The box feature, and the proposals."""
        return [_BOX_FEATURE, _EXTRACTED]

    @property
    def compared_taps(self) -> list[str]:
        """None: proposals are drawn in training only."""
        return []

    @property
    def teacher_taps(self) -> list[str]:
        """The levels that the box head starts from."""
        return [_LEVELS]

    def prepare(self, student: TappedPass, teachers: Sequence[TappedPass], key: str) -> None:
        """See :class:`LSH`; of the proposals of the dry run only the widths count, and there may be none."""
        with config_key(key):
            on_proposals = self._on_proposals(student, teachers)
        super().prepare(_one_row(student), [_one_row(reading) for reading in on_proposals], key)

    def forward(self, student: TappedPass, teachers: Sequence[TappedPass]) -> dict[str, Tensor]:
        return super().forward(student, self._on_proposals(student, teachers))

    @torch.no_grad()
    def _on_proposals(self, student: TappedPass, teachers: Sequence[TappedPass]) -> list[TappedPass]:
        """What the teachers make of the student's proposals."""
        rois = student[_EXTRACTED][-1]
        return [replace(teacher, features={_BOX_FEATURE: [box_feature(teacher.model, teacher[_LEVELS], rois)]})
                for teacher in teachers]

    def _std_at(self, teacher: TappedPass, pair: TapPair) -> float:
        return weight_std(box_classifier(teacher.model))

    def _default_hashes(self, width: int) -> int:
        return 4 * width


def _one_row(reading: TappedPass) -> TappedPass:
    feature = reading[_BOX_FEATURE][0]
    return replace(reading, features={_BOX_FEATURE: [feature.new_zeros(1, feature.shape[1])]})
