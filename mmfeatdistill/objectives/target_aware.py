"""Target-aware distillation: features are matched where the queries of a transformer detector find objects."""
from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor, nn

from mmfeatdistill.connectors.conv import aligned
from mmfeatdistill.errors import ConfigError, config_key
from mmfeatdistill.losses import target_aware
from mmfeatdistill.objectives.base import Objective, Taps
from mmfeatdistill.objectives.box_masks import ground_truth_boxes
from mmfeatdistill.objectives.pairs import match_features
from mmfeatdistill.objectives.query_scores import query_scores
from mmfeatdistill.objectives.trial import check_predictions
from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.feature_map import shape_of
from mmfeatdistill.taps.reader import TappedPass

_QUERIES = 'bbox_head:in[0]'
_PREDICTIONS = 'bbox_head'


@MODELS.register_module()
class TargetAware(Objective):
    r"""The target-aware feature distillation of DETRDistill (arXiv 2211.10156), for Deformable DETR, DINO and others.

    .. math:: L_i = \lambda \sum_l \mathrm{mean}_{n,c,p} \bigl(m_{lnp} (t_{ncp} - R(g_i(s_i))_{ncp})\bigr)^2

    for each pair of maps, with the losses :func:`mmfeatdistill.losses.target_aware` summed over the teacher's decoder
    layers: m is high where the teacher's feature looks like those of its queries that find an object, by
    :func:`mmfeatdistill.objectives.query_scores.query_scores`. The student may be any detector; the teacher's
    predictions are compared with the boxes of the batch. A 1x1 convolution g stands before the loss where the student
    has another width, and the resize rule R is that of :class:`FeatureMatch`. Logged as ``loss_0``, ``loss_1``, ...: in
    the order of the teachers, and of the levels.

    The other two terms of DETRDistill, matched predictions and the query prior, are not here.

    Args:
        taps (list): Tap pairs that give maps, ``['neck']``; the teacher's has the width of its queries.
        loss_weight (float): Factor :math:`\lambda`. Defaults to 1, the authors'.
        max_per_image (int): How many pairs of a query and a class count for an image. Defaults to 100, the
            authors'.
        teacher (int, optional): Which of several teachers is mimicked. Defaults to None: all of them.

    Raises:
        TypeError: ``taps`` or ``teacher`` is of another type.
        ValueError: ``taps`` is empty or does not follow the grammar, or ``max_per_image`` is no positive number.

    Examples:
        >>> from mmdet.structures import DetDataSample
        >>> from mmengine.structures import InstanceData
        >>> from mmfeatdistill.taps.reader import TapReader
        >>> boxes = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 16.0, 16.0]]))
        >>> sample = DetDataSample(gt_instances=boxes, metainfo=dict(img_shape=(32, 32)))
        >>> teacher = nn.ModuleDict(dict(neck=nn.Identity(), bbox_head=nn.Identity()))
        >>> def reading(feature):
        ...     reader = TapReader(teacher, ['neck'], 'net')
        ...     decoder = {'bbox_head:in[0]': [torch.rand(6, 1, 9, 8)],
        ...                'bbox_head': [torch.rand(6, 1, 9, 5), torch.rand(6, 1, 9, 4)]}
        ...     return TappedPass({'neck': [feature], **decoder}, reader, torch.zeros(1, 3, 32, 32), [sample])
        >>> objective = TargetAware(taps=['neck'])
        >>> objective.prepare(reading(torch.rand(1, 3, 4, 4)), [reading(torch.rand(1, 8, 4, 4))], key='target_aware')
        >>> list(objective(reading(torch.rand(1, 3, 4, 4)), [reading(torch.rand(1, 8, 4, 4))]))
        ['loss_0']
    """

    needs_labels = True

    def __init__(self, taps: Taps, loss_weight: float = 1.0, max_per_image: int = 100,
                 teacher: Optional[int] = None) -> None:
        super().__init__(taps, teacher)
        if not isinstance(max_per_image, int) or max_per_image < 1:
            raise ValueError(f'max_per_image: expected a positive integer, got {max_per_image!r}.')
        self.loss = _TargetAware(loss_weight)
        self.max_per_image = max_per_image

    @property
    def teacher_taps(self) -> list[str]:
        """The levels, the queries that leave each decoder layer, and what the head makes of them."""
        return [*super().teacher_taps, _QUERIES, _PREDICTIONS]

    def prepare(self, student: TappedPass, teachers: Sequence[TappedPass], key: str) -> None:
        """Builds the connectors, and tries the loss without boxes (see :class:`Objective`).

        Args:
            student (TappedPass): The student in the dry run, on one image.
            teachers (Sequence[TappedPass]): Each teacher that is read.
            key (str): Where this objective stands in the config.

        Raises:
            ConfigError: A teacher has no queries, or the features cannot be matched or are no maps of their width.
        """
        for teacher in teachers:
            _check_decoder(teacher, key)
        self.pairs = match_features(self.taps, student, teachers, key)
        self.connectors = nn.ModuleList()
        for pair in self.pairs:
            check_predictions(pair, student, teachers[pair.teacher_index], f'{key}.taps')
            own, target = (shape_of(feature) for feature in pair.of(student, teachers))
            width = teachers[pair.teacher_index][_QUERIES][0].shape[3]
            if target.channels != width:
                raise ConfigError(f"{key}.taps: the teacher's {pair.teacher.tap!r} gives {target.channels} channels, "
                                  f'and its queries, which are compared with it, have {width}; tap what its encoder '
                                  "reads, 'neck'.")
            self.connectors.append(aligned(own, target))
        self.to(self.pairs[0].student.of(student).dtype)
        with config_key(key), torch.no_grad():
            self._losses(student, teachers, [student.inputs.new_zeros(0, 4)])

    def forward(self, student: TappedPass, teachers: Sequence[TappedPass]) -> dict[str, Tensor]:
        """The losses of a batch (see :class:`Objective`).

        Args:
            student (TappedPass): The student's features, and the labels of the batch.
            teachers (Sequence[TappedPass]): Those of each teacher that is read, without gradient.

        Returns:
            dict[str, Tensor]: One for each pair of maps.

        Raises:
            ValueError: The batch has no boxes among its labels.
        """
        boxes = ground_truth_boxes(student.data_samples)
        # As the teacher's boxes are: relative to the image without its padding, whatever size the teacher sees it in.
        sizes = [sample.img_shape[:2] for sample in student.data_samples or []]
        return self._losses(student, teachers, [of_image / of_image.new_tensor([width, height, width, height])
                                                for of_image, (height, width) in zip(boxes, sizes)])

    def _losses(self, student: TappedPass, teachers: Sequence[TappedPass],
                boxes: Sequence[Tensor]) -> dict[str, Tensor]:
        predictions = (teacher[_PREDICTIONS] for teacher in teachers)
        scores = [query_scores(logits, found, boxes, self.max_per_image) for logits, found in predictions]
        return {f'loss_{i}': self.loss(*pair.connect(connector, *pair.of(student, teachers)),
                                       queries=teachers[pair.teacher_index][_QUERIES][0],
                                       scores=scores[pair.teacher_index])
                for i, (connector, pair) in enumerate(zip(self.connectors, self.pairs))}


class _TargetAware(nn.Module):
    """:func:`target_aware` times ``loss_weight``."""

    def __init__(self, loss_weight: float) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor, *, queries: Tensor, scores: Tensor) -> Tensor:
        return self.loss_weight * target_aware(student, teacher, queries=queries, scores=scores)


def _check_decoder(teacher: TappedPass, key: str) -> None:
    """Whether the head reads the queries of every decoder layer, and gives sigmoid scores and boxes of each."""
    head = getattr(teacher.model, 'bbox_head', None)
    shapes = [tuple(tensor.shape) for tensor in (*teacher[_QUERIES], *teacher[_PREDICTIONS])]
    has_queries = len(shapes) == 3 and all(len(shape) == 4 and shape[:3] == shapes[0][:3] for shape in shapes)
    if not has_queries or shapes[2][3] != 4:
        raise ConfigError(f'{key}: TargetAware needs a teacher whose bbox_head takes the queries of every decoder '
                          f'layer and gives scores and boxes of each, as those of DeformableDETR and DINO do, and that '
                          f'of {type(teacher.model).__name__} takes {shapes[0]} and gives {shapes[1:]}; with this '
                          'teacher, use a FeatureMatch or FGD over the neck.')
    if not getattr(getattr(head, 'loss_cls', None), 'use_sigmoid', True):
        raise ConfigError(f'{key}: TargetAware weighs queries by sigmoid scores, and the bbox_head '
                          f'{type(head).__name__} of {type(teacher.model).__name__} has a softmax; those of '
                          'DeformableDETR and DINO have sigmoids.')
