"""How much each position of a map counts: where a teacher is sure of an object, or where the labels have one."""
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.objectives.box_masks import box_masks, ground_truth_boxes
from mmfeatdistill.objectives.pairs import Feature, FeaturePair
from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.dummy_batch import library_of
from mmfeatdistill.taps.reader import TappedPass


class PositionWeight(ABC):
    """What ``weight`` of :class:`mmfeatdistill.objectives.FeatureMatch` may be.

    Attributes:
        teacher_taps (list[str]): What it reads of each teacher.
        networks (str, optional): Which networks alone it is for (see :class:`Objective`).
        needs_labels (bool): Whether it looks at the labels of a batch.
    """

    teacher_taps: Sequence[str] = ()
    needs_labels = False
    networks: Optional[str] = None

    @abstractmethod
    def check(self, pair: FeaturePair, student: TappedPass, teachers: Sequence[TappedPass], key: str) -> None:
        """Whether there are weights for a pair of maps.

        Args:
            pair (FeaturePair): What is matched.
            student (TappedPass): The student in the dry run, on one image.
            teachers (Sequence[TappedPass]): Each teacher that is read.
            key (str): Where the weight stands in the config.

        Raises:
            ConfigError: There are none, and why.
        """

    @abstractmethod
    def of(self, pair: FeaturePair, student: TappedPass, teachers: Sequence[TappedPass]) -> Tensor:
        """The weights of the positions of a teacher's map, shape (N, 1, H, W)."""


@MODELS.register_module()
class TeacherScore(PositionWeight):
    r"""The largest class probability of a teacher at each position.

    .. math:: w_{ni} = \max_k \sigma(z_{nki})

    with the logits z of all classes and anchors of the level that has the stride of the matched map. It is for dense
    heads with a sigmoid for each class, such as those of RetinaNet, FCOS, GFL, ATSS and RTMDet; of a two-stage teacher
    it is the objectness of its RPN, ``head='rpn_head'``.

    Args:
        head (str): The teacher's. Defaults to ``'bbox_head'``.
    """

    def __init__(self, head: str = 'bbox_head') -> None:
        self.head = head
        self.teacher_taps = [head]
        self.networks = (f'teachers with scores at every position at {head!r}, as its weight TeacherScore reads them; '
                         "of two-stage detectors that is dict(type='TeacherScore', head='rpn_head')")
        self._levels: dict[tuple[int, Feature], int] = {}

    def check(self, pair: FeaturePair, student: TappedPass, teachers: Sequence[TappedPass], key: str) -> None:
        teacher = teachers[pair.teacher_index]
        head = teacher.model.get_submodule(self.head)
        reason = _why_no_scores(head, len(teacher[self.head]))
        if reason:
            raise ConfigError(f"{key}: the teacher's {self.head!r} ({type(head).__name__}) {reason}, so it does not "
                              'tell where objects are; heads of RetinaNet, FCOS, GFL, ATSS and RTMDet do, and '
                              "dict(type='TeacherScore', head='rpn_head') of two-stage detectors. "
                              "dict(type='GroundTruth') looks at the labels instead.")
        layouts = teacher.layouts(self.head)[:len(head.prior_generator.strides)]
        found = [level for level, layout in enumerate(layouts) if layout.stride == pair.teacher.layout.stride
                 and teacher[self.head][level].shape[2:] == pair.target(teachers).shape[2:]]
        if not found:
            strides = ', '.join(f'{layout.stride:g}' for layout in layouts if layout.stride)
            raise ConfigError(f"{key}: the teacher's {self.head!r} gives scores of stride {strides}, and none for "
                              f'{pair.teacher}; tap levels that the head reads.')
        self._levels[pair.teacher_index, pair.teacher] = found[0]

    def of(self, pair: FeaturePair, student: TappedPass, teachers: Sequence[TappedPass]) -> Tensor:
        teacher = teachers[pair.teacher_index]
        scores = teacher[self.head][self._levels[pair.teacher_index, pair.teacher]].amax(1, keepdim=True).sigmoid()
        size = pair.target(teachers).shape[2:]
        # Levels of one stride may round the size of an image differently.
        return scores if scores.shape[2:] == size else F.interpolate(scores, size=size, mode='bilinear')


def _why_no_scores(head: Any, given: int) -> str:
    """Why the first outputs of a head are no logits of each level with a sigmoid for each class; empty if they are."""
    levels = len(getattr(getattr(head, 'prior_generator', None), 'strides', ()))
    if not levels or given < levels or given % levels:
        return 'does not predict at every position of several levels'
    if not getattr(head, 'use_sigmoid_cls', False):
        return 'has a softmax over the classes and the background'
    if hasattr(head, 'loss_obj'):
        return 'multiplies its class scores by those of another branch'
    return ''


@MODELS.register_module()
class GroundTruth(PositionWeight):
    """1 where the labels have an object, and another value elsewhere.

    A box covers the cells that :func:`mmfeatdistill.objectives.box_masks.box_masks` gives it; a mask, the cells in
    which it has a pixel.

    Args:
        shape (str): ``'boxes'`` or ``'masks'``, which the student's pipeline has to load. Defaults to ``'boxes'``.
        background (float): What all other positions count. Defaults to 0.

    Raises:
        ValueError: ``shape`` is neither, or ``background`` is negative.
    """

    needs_labels = True

    def __init__(self, shape: Literal['boxes', 'masks'] = 'boxes', background: float = 0.0) -> None:
        if shape not in ('boxes', 'masks'):
            raise ValueError(f"shape: expected 'boxes' or 'masks', got {shape!r}.")
        if not background >= 0:
            raise ValueError(f'background: expected a number of at least 0, got {background!r}.')
        self.shape = shape
        self.background = background

    def check(self, pair: FeaturePair, student: TappedPass, teachers: Sequence[TappedPass], key: str) -> None:
        library = library_of(student.model)
        if library not in (None, 'mmdet'):
            raise ConfigError(f'{key}: GroundTruth needs the {self.shape} of the batch, which are labels of detectors, '
                              f'and the student {type(student.model).__name__} of {library} has none.')

    def of(self, pair: FeaturePair, student: TappedPass, teachers: Sequence[TappedPass]) -> Tensor:
        size, image_size = pair.target(teachers).shape[2:], tuple(student.inputs.shape[-2:])
        boxes = ground_truth_boxes(student.data_samples)
        if self.shape == 'boxes':
            covered = box_masks(boxes, [image_size] * len(boxes), size)[0] > 0
        else:
            covered = torch.stack([_mask_cells(sample, student.inputs, size) for sample in student.data_samples or []])
        return torch.where(covered, 1.0, self.background)[:, None]


def _mask_cells(sample: Any, inputs: Tensor, size: Sequence[int]) -> Tensor:
    """Which cells of a map have a pixel of an object, shape (H, W)."""
    masks = getattr(sample.gt_instances, 'masks', None)
    if masks is None:
        raise ValueError("the data samples have no masks ('gt_instances.masks'), as those of instance segmentation in "
                         'mmdet have. Is with_mask=True missing at LoadAnnotations in the pipeline?')
    pixels = masks.to_tensor(torch.float32, inputs.device)
    if not len(pixels):
        return torch.zeros(*size, dtype=torch.bool, device=inputs.device)
    padding = (0, inputs.shape[-1] - pixels.shape[-1], 0, inputs.shape[-2] - pixels.shape[-2])
    return F.adaptive_max_pool2d(F.pad(pixels.amax(0, keepdim=True), padding), tuple(size))[0] > 0
