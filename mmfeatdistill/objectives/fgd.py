"""Focal and global distillation: detectors that look at their objects, at the rest, and at how both belong together."""
from collections.abc import Sequence
from typing import Literal, Optional

import torch
from torch import Tensor, nn

from mmfeatdistill.connectors.conv import aligned
from mmfeatdistill.connectors.global_block import GlobalBlock
from mmfeatdistill.errors import ConfigError, config_key
from mmfeatdistill.losses import attention_error, focal, global_relation
from mmfeatdistill.objectives.base import Objective, Taps
from mmfeatdistill.objectives.box_masks import box_masks, ground_truth_boxes
from mmfeatdistill.objectives.pairs import FeaturePair, match_features
from mmfeatdistill.objectives.trial import check_predictions
from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.dummy_batch import library_of
from mmfeatdistill.taps.feature_map import shape_of
from mmfeatdistill.taps.reader import TappedPass


@MODELS.register_module()
class FGD(Objective):
    r"""Focal and Global Knowledge Distillation for Detectors (arXiv 2111.11837).

    .. math:: L = \sum_l \alpha L_\mathrm{foreground} + \beta L_\mathrm{background} + \gamma L_\mathrm{attention}
        + \lambda L_\mathrm{global}

    for each level, with the losses :func:`mmfeatdistill.losses.focal`, whose masks are those of
    :func:`mmfeatdistill.objectives.box_masks.box_masks`, :func:`mmfeatdistill.losses.attention_error` and
    :func:`mmfeatdistill.losses.global_relation` with two
    :class:`mmfeatdistill.connectors.global_block.GlobalBlock`, which are both trained. Where the student has another
    width, a 1x1 convolution stands before all. Each level has modules of its own. Logged as ``loss_foreground``,
    ``loss_background``, ``loss_attention`` and ``loss_global``, each the sum over the levels and teachers.

    The boxes are the labels of the batch, without those to be ignored; an image without boxes is all background, and
    so is what it is padded by, as in the authors' code.

    The authors' other weights: 1e-3, 5e-4, 5e-4, 5e-6 for RetinaNet, GFL and SOLO; 1.6e-3, 8e-4, 8e-4, 8e-6 for
    RepPoints and, with the temperature 0.8, FCOS.

    Args:
        taps (list): Tap pairs that give maps, such as ``['neck']`` (see :class:`FeatureMatch`); sizes must agree.
        tau (float): Temperature of the attentions. Defaults to 0.5, the authors'.
        foreground_weight (float): Factor :math:`\alpha`. Defaults to 5e-5, the authors' for two-stage detectors.
        background_weight (float): Factor :math:`\beta`. Defaults to 2.5e-5, likewise.
        attention_weight (float): Factor :math:`\gamma`. Defaults to 5e-5, likewise.
        global_weight (float): Factor :math:`\lambda`. Defaults to 5e-7, likewise.
        boxes_in (str): Which pixels a map extends over when boxes are laid over it: the ``'batch'``, as it is padded,
            or each ``'image'`` without its padding, which is the authors' code and stretches the boxes of padded
            images. Defaults to ``'batch'``.
        teacher (int, optional): Which of several teachers is mimicked. Defaults to None: all of them.

    Raises:
        TypeError: ``taps`` or ``teacher`` is of another type.
        ValueError: ``taps`` is empty or does not follow the grammar, or ``boxes_in`` is neither.

    Examples:
        >>> from mmdet.structures import DetDataSample
        >>> from mmengine.structures import InstanceData
        >>> from mmfeatdistill.taps.reader import TapReader
        >>> sample = DetDataSample(gt_instances=InstanceData(bboxes=torch.tensor([[0.0, 0.0, 8.0, 8.0]])))
        >>> def reading(feature):
        ...     reader = TapReader(nn.Sequential(nn.ReLU()), ['0'], 'net')
        ...     return TappedPass({'0': [feature]}, reader, torch.zeros(1, 3, 32, 32), [sample])
        >>> objective = FGD(taps=['0'])
        >>> objective.prepare(reading(torch.zeros(1, 3, 4, 4)), [reading(torch.zeros(1, 8, 4, 4))], key='fgd')
        >>> sorted(objective(reading(torch.rand(1, 3, 4, 4)), [reading(torch.rand(1, 8, 4, 4))]))
        ['loss_attention', 'loss_background', 'loss_foreground', 'loss_global']
    """

    needs_labels = True

    def __init__(self, taps: Taps, tau: float = 0.5, foreground_weight: float = 5e-5, background_weight: float = 2.5e-5,
                 attention_weight: float = 5e-5, global_weight: float = 5e-7,
                 boxes_in: Literal['batch', 'image'] = 'batch', teacher: Optional[int] = None) -> None:
        super().__init__(taps, teacher)
        if boxes_in not in ('batch', 'image'):
            raise ValueError(f"boxes_in: expected 'batch' or 'image', got {boxes_in!r}.")
        self.loss = _Focal(tau)
        self.tau = tau
        self.foreground_weight = foreground_weight
        self.background_weight = background_weight
        self.attention_weight = attention_weight
        self.global_weight = global_weight
        self.boxes_in = boxes_in

    def prepare(self, student: TappedPass, teachers: Sequence[TappedPass], key: str) -> None:
        """Builds the modules of each pair of features, and tries them without boxes (see :class:`Objective`).

        Args:
            student (TappedPass): The student in the dry run, on one image.
            teachers (Sequence[TappedPass]): Each teacher that is read.
            key (str): Where this objective stands in the config.

        Raises:
            ConfigError: The student is no detector, or the features cannot be matched or are no maps of one size.
        """
        library = library_of(student.model)
        if library not in (None, 'mmdet'):
            raise ConfigError(f'{key}: FGD needs the boxes of the batch, which are labels of detectors, and the '
                              f'student {type(student.model).__name__} of {library} has none; use a FeatureMatch, as '
                              "in dict(type='FeatureMatch', taps=['backbone'], connector=dict(type='ChannelMLP'), "
                              "loss=dict(type='SquaredError')).")
        self.pairs = match_features(self.taps, student, teachers, key)
        self.connectors, self.student_blocks, self.teacher_blocks = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for pair in self.pairs:
            check_predictions(pair, student, teachers[pair.teacher_index], f'{key}.taps')
            with config_key(f'{key}.taps'):
                _check_maps(pair, *pair.of(student, teachers))
            own, target = (shape_of(feature) for feature in pair.of(student, teachers))
            self.connectors.append(aligned(own, target))
            self.student_blocks.append(GlobalBlock(target.channels))
            self.teacher_blocks.append(GlobalBlock(target.channels))
        self.to(self.pairs[0].student.of(student).dtype)
        with config_key(key), torch.no_grad():
            self._losses(student, teachers, [student.inputs.new_zeros(0, 4)], [(1, 1)])

    def forward(self, student: TappedPass, teachers: Sequence[TappedPass]) -> dict[str, Tensor]:
        """The losses of a batch (see :class:`Objective`).

        Args:
            student (TappedPass): The student's features, and the labels of the batch.
            teachers (Sequence[TappedPass]): Those of each teacher that is read, without gradient.

        Returns:
            dict[str, Tensor]: The four losses.

        Raises:
            ValueError: The batch has no boxes among its labels.
        """
        boxes = ground_truth_boxes(student.data_samples)
        sizes = ([sample.img_shape[:2] for sample in student.data_samples or []] if self.boxes_in == 'image' else
                 [tuple(student.inputs.shape[-2:])] * len(boxes))
        return self._losses(student, teachers, boxes, sizes)

    def _losses(self, student: TappedPass, teachers: Sequence[TappedPass], boxes: Sequence[Tensor],
                image_sizes: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        masks: dict[torch.Size, tuple[Tensor, Tensor]] = {}
        terms = []
        for pair, connector, student_block, teacher_block in zip(self.pairs, self.connectors, self.student_blocks,
                                                                 self.teacher_blocks):
            own, target = pair.of(student, teachers)
            size = target.shape[2:]
            if size not in masks:
                masks[size] = box_masks(boxes, image_sizes, size)
            own = connector(own)
            terms.append(torch.cat([
                self.loss(own, target, masks=masks[size]),
                torch.stack([attention_error(own, target, tau=self.tau),
                             global_relation(own, target, student_block=student_block, teacher_block=teacher_block)])]))
        foreground, background, attention, relation = torch.stack(terms).sum(0)
        return dict(loss_foreground=self.foreground_weight * foreground,
                    loss_background=self.background_weight * background,
                    loss_attention=self.attention_weight * attention, loss_global=self.global_weight * relation)


class _Focal(nn.Module):
    """:func:`focal` at a temperature."""

    def __init__(self, tau: float) -> None:
        super().__init__()
        self.tau = tau

    def forward(self, student: Tensor, teacher: Tensor, *, masks: Sequence[Tensor]) -> Tensor:
        return focal(student, teacher, masks=masks, tau=self.tau)


def _check_maps(pair: FeaturePair, student: Tensor, teacher: Tensor) -> None:
    if student.dim() != 4 or teacher.dim() != 4:
        raise ValueError(f"boxes can be laid over maps (N, C, H, W) only, and the student's {pair.student.tap!r} gives "
                         f"{tuple(student.shape)}, the teacher's {pair.teacher.tap!r} {tuple(teacher.shape)}; tap the "
                         "levels of the neck, as in taps=['neck'].")
    if student.shape[2:] != teacher.shape[2:]:
        raise ValueError(f'the two maps must have the same size, and of one image the student\'s {pair.student} gives '
                         f"{tuple(student.shape)}, the teacher's {pair.teacher} {tuple(teacher.shape)}; tap places of "
                         'the same stride.')
