"""Shared queries: what two DETRs answer to the same questions about an image."""
import random
from collections.abc import Sequence
from typing import Literal, Optional

import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub
from torch import Tensor

from mmfeatdistill.errors import config_key
from mmfeatdistill.losses import binary_divergence, box_distance
from mmfeatdistill.objectives.base import Objective, mean_over_processes, only_teacher
from mmfeatdistill.objectives.decoder_queries import (
    ENCODER,
    NECK,
    Memory,
    check_detector,
    decode,
    form_of,
    memory_of,
    start_of,
    with_general_points,
)
from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.dry_run import probe
from mmfeatdistill.taps.isolation import eval_isolated
from mmfeatdistill.taps.reader import TappedPass, TapReader


@MODELS.register_module()
class SharedQueries(Objective):
    r"""Knowledge distillation for DETR with consistent distillation points (KD-DETR, arXiv 2211.08071).

    Beside its own detection, the student answers a second set of queries, on its own image memory: those from which the
    teacher starts on this very image, and others at random places. The teacher answers the same set, and the answers
    are compared query by query, so that nothing has to be matched.

    .. math:: L = \frac{1}{\sum_i w_i} \sum_i w_i \bigl(\lambda_c D(c^s_i, c^t_i)
        + \lambda_1 \lVert b^s_i - b^t_i \rVert_1 + \lambda_g (1 - \mathrm{GIoU}(b^s_i, b^t_i))\bigr)

    over the queries of all images, with the divergence :func:`mmfeatdistill.losses.binary_divergence` of the logits of
    the classes, the boxes as center and sides in fractions of the image, and the teacher's highest score :math:`w_i`.
    Logged as ``loss_class``, ``loss_box`` and ``loss_overlap``. The sum of the weights is a mean over all processes.

    Weights, divisor, number of points and the content of the random ones are chosen here; the page of the method says
    what the paper states. It costs a second pass of the student's decoder; the teacher's runs once.

    Args:
        general (int): Number of queries at random places, drawn anew in each iteration, the same for all images and
            processes. Defaults to 300.
        layers (str): Which layers of the decoders are compared: the ``'last'``, or ``'all'``, one by one. Defaults to
            ``'last'``.
        class_weight (float): Factor :math:`\lambda_c`. Defaults to 1.
        box_weight (float): Factor :math:`\lambda_1`. Defaults to 5.
        overlap_weight (float): Factor :math:`\lambda_g`. Defaults to 2.
        teacher (int, optional): Which of several teachers is mimicked; needed where there are several.

    Raises:
        TypeError: ``teacher`` is of another type.
        ValueError: ``general`` is negative, or ``layers`` is neither.

    Examples:
        >>> SharedQueries(general=100).student_taps
        ['encoder', 'neck']
    """

    runs_teacher = True
    networks = 'Deformable DETR and DINO of mmdet, on both sides'

    def __init__(self, general: int = 300, layers: Literal['last', 'all'] = 'last', class_weight: float = 1.0,
                 box_weight: float = 5.0, overlap_weight: float = 2.0, teacher: Optional[int] = None) -> None:
        super().__init__([ENCODER], teacher)
        if general < 0:
            raise ValueError(f'general: expected a number of queries, got {general}.')
        if layers not in ('last', 'all'):
            raise ValueError(f"layers: expected 'last' or 'all', got {layers!r}.")
        self.general = general
        self.layers = layers
        self.class_weight = class_weight
        self.box_weight = box_weight
        self.overlap_weight = overlap_weight

    @property
    def student_taps(self) -> list[str]:
        """The image memory, and the levels that it is made of."""
        return [ENCODER, NECK]

    @property
    def teacher_taps(self) -> list[str]:
        """The same places; so the teacher's pass ends at its encoder."""
        return [ENCODER, NECK]

    def prepare(self, student: TappedPass, teachers: Sequence[TappedPass], key: str) -> None:
        """Lets both decoders answer the teacher's queries once (see :class:`Objective`).

        Args:
            student (TappedPass): The student in the dry run, on one image.
            teachers (Sequence[TappedPass]): The teacher.
            key (str): Where this objective stands in the config.

        Raises:
            ConfigError: One of the two is no such DETR, or their queries, classes or numbers of layers differ.
        """
        teacher = only_teacher(teachers, key)
        with config_key(key), eval_isolated(student.model):
            for reading, side in ((student, 'student'), (teacher, 'teacher')):
                check_detector(reading.model, side)
            student, teacher = _with_room(student), _with_room(teacher)
            forms = [form_of(start_of(reading.model, _memory(reading))) for reading in (student, teacher)]
            if forms[0] != forms[1]:
                raise ValueError(f'a query of the student ({type(student.model).__name__}) consists of {forms[0]}, by '
                                 f'width, and one of the teacher ({type(teacher.model).__name__}) of {forms[1]}; two '
                                 'DETRs of one kind and width are needed to share them.')
            start = start_of(teacher.model, _memory(teacher))
            own, theirs = (decode(reading.model, _memory(reading), start) for reading in (student, teacher))
            shapes = own[0].shape, theirs[0].shape
            if shapes[0][3] != shapes[1][3]:
                raise ValueError(f"the student's head has {shapes[0][3]} classes and the teacher's {shapes[1][3]}; "
                                 'they have to be the same ones.')
            if self.layers == 'all' and shapes[0][0] != shapes[1][0]:
                raise ValueError(f"the student's decoder has {shapes[0][0]} layers and the teacher's {shapes[1][0]}; "
                                 "layers='last' compares the last ones only.")

    def forward(self, student: TappedPass, teachers: Sequence[TappedPass]) -> dict[str, Tensor]:
        """The losses of a batch (see :class:`Objective`).

        Args:
            student (TappedPass): The student's image memory.
            teachers (Sequence[TappedPass]): The teacher's, without gradient.

        Returns:
            dict[str, Tensor]: The losses of classes, boxes and their overlap.
        """
        [teacher] = teachers
        with torch.no_grad():
            memory = _memory(teacher)
            start = with_general_points(start_of(teacher.model, memory), self.general, _generator())
            theirs = decode(teacher.model, memory, start)
        own = decode(student.model, _memory(student), start)
        first = 0 if self.layers == 'all' else -1
        (logits, boxes), (target_logits, targets) = ((part[first:].flatten(0, 2).float() for part in side)
                                                     for side in (own, theirs))
        weights = target_logits.sigmoid().amax(1)
        weights = weights / mean_over_processes(weights.sum()).clamp_min(1e-6)
        return dict(
            loss_class=self.class_weight * (weights * binary_divergence(logits, target_logits)).sum(),
            loss_box=self.box_weight * (weights * F.l1_loss(boxes, targets, reduction='none').sum(1)).sum(),
            loss_overlap=self.overlap_weight * (weights * box_distance(_corners(boxes), _corners(targets))).sum())


def _memory(reading: TappedPass) -> Memory:
    return memory_of(reading.model, reading[NECK], reading[ENCODER][0], reading.data_samples or [])


def _with_room(reading: TappedPass) -> TappedPass:
    """A dry run on an image that has as many positions as the detector wants queries, as DINO picks 900 of them."""
    if reading[ENCODER][0].shape[1] >= reading.model.num_queries:
        return reading
    return probe(reading.model, TapReader(reading.model, [ENCODER, NECK, 'decoder'], reading.reader.owner))[0]


def _generator() -> torch.Generator:
    """Draws from the number of the iteration: all processes alike, and a resumed run as one that was not stopped."""
    iteration = MessageHub.get_current_instance().get_info('iter')
    return torch.Generator().manual_seed(random.getrandbits(31) if iteration is None else iteration)


def _corners(boxes: Tensor) -> Tensor:
    center, sides = boxes[:, :2], boxes[:, 2:]
    return torch.cat([center - sides / 2, center + sides / 2], 1)
