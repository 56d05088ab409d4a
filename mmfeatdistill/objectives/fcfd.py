"""Function-consistent feature distillation: features that also act alike in the later part of the other network."""
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Union

from mmengine.logging import MessageHub
from torch import Tensor, nn

from mmfeatdistill.connectors import Bridge
from mmfeatdistill.errors import ConfigError, config_key
from mmfeatdistill.losses import appearance, kl_divergence
from mmfeatdistill.objectives.base import Objective, TapPair, Taps, keep_in_graph, only_teacher
from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.feature_map import same_size, shape_of
from mmfeatdistill.taps.isolation import batch_statistics, untracked_statistics
from mmfeatdistill.taps.reader import TappedPass
from mmfeatdistill.taps.tail import StageChain


class MixedPath(NamedTuple):
    """The first stages of one network, then the later part of the other."""

    stage: int
    ends_in_teacher: bool


@MODELS.register_module()
class FCFD(Objective):
    r"""Pulls bridged features to the teacher's, and what either network makes of the other's features.

    With :math:`s^l, t^l` the features at the end of stage :math:`l`, bridges :math:`b^l` to the teacher's space and
    :math:`c^l` to the student's, and the later parts :math:`S^{l}, T^{l}` of the two networks after stage :math:`l`:

    .. math:: L_\mathrm{app} = \sum_l \mathrm{mse}\bigl(b^l(s^l), t^l\bigr)
        + \mathrm{mse}\bigl(g(b^L(s^L)), g(t^L)\bigr)

    .. math:: L_\mathrm{func} = \sum_{k} \tau^2 \, \mathrm{KL}\bigl(p_\tau(\mathrm{path}_k) \,\Vert\, p_\tau(t)\bigr)

    :math:`g` is the global mean of the activated feature, and only there where the network's output is a vector, which
    a classifier made of it. Each iteration draws :math:`K` mixed paths :math:`T^l(b^l(s^l))` and :math:`S^l(c^l(t^l))`
    without replacement; of the former, the features at the later stages join :math:`L_\mathrm{app}`. After the last
    stage a path is only continued where the output is a map, by the decode head. Only the later parts run again.

    Source: FCFD (ICLR 2023, arXiv 2304.11832) and its authors' code. Mixed paths normalize by statistics of their own,
    those of the batch, in the teacher's stages too; the running statistics of both networks stay as they are. Gradient
    flows through the teacher's frozen later part to the student, and through the student's later part to its weights.
    The authors' teacher uses batch statistics in its own pass as well: ``teacher=dict(..., batch_statistics=True)``.

    The student's own divergence from the teacher is another objective: a ``FeatureMatch`` on the logits with
    ``KLDivergence``. The authors raise the weight of :math:`L_\mathrm{app}` linearly over 20 epochs:
    ``dict(type='ObjectiveScheduleHook', objective='fcfd', loss='loss_appearance', warmup=20)``.

    Args:
        taps (list): The end of each stage, in the order of the network and without the stem:
            ``['backbone.layer1:pre', ..., 'backbone.layer4:pre']``.
        output (str | dict): Tap of the logits, ``'head.fc'`` or ``'decode_head.conv_seg'``.
        tau (float): Temperature. Defaults to 4; the authors use 8 for some pairs and 1 on ImageNet.
        paths (int): Mixed paths in each iteration. Defaults to 2, as the authors.
        appearance_weight (float): Factor of :math:`L_\mathrm{app}`. Defaults to 5, the authors' on CIFAR-100; 0.02 on
            ImageNet.
        function_weight (float): Factor of :math:`L_\mathrm{func}`. Defaults to 1, as the authors.
        teacher (int, optional): Which of several teachers is mimicked; needed where there are several.
    """

    runs_teacher = True

    def __init__(self, taps: Taps, output: Union[str, Mapping], tau: float = 4.0,
                 paths: int = 2, appearance_weight: float = 5.0, function_weight: float = 1.0,
                 teacher: Union[int, None] = None) -> None:
        super().__init__(taps, teacher)
        self.output = TapPair.parse(output)
        self.paths = paths
        self.tau = tau
        self.appearance_weight = appearance_weight
        self.function_weight = function_weight

    @property
    def student_taps(self) -> list[str]:
        """The stages, and the logits for mixed paths."""
        return [*super().student_taps, self.output.student.text]

    @property
    def compared_taps(self) -> list[str]:
        """The stages and the logits."""
        return self.student_taps

    @property
    def teacher_taps(self) -> list[str]:
        """The stages and the logits."""
        return [*super().teacher_taps, self.output.teacher.text]

    def prepare(self, student: TappedPass, teachers: Sequence[TappedPass], key: str) -> None:
        """Builds the bridges, and finds the later parts of both networks (see :class:`Objective`)."""
        teacher = only_teacher(teachers, key)
        with config_key(f'{key}.taps'):
            self._student = StageChain(student, [tap.student.text for tap in self.taps], self.output.student.text)
            self._teacher = StageChain(teacher, [tap.teacher.text for tap in self.taps], self.output.teacher.text)
            pairs = list(zip(self._student.features(student), self._teacher.features(teacher)))
            self.to_teacher = nn.ModuleList(_bridge(s, t) for s, t in pairs)
            self.to_student = nn.ModuleList(_bridge(t, s) for s, t in pairs)
        with config_key(f'{key}.output'):
            student_output, teacher_output = student[self.output.student.text][0], teacher[self.output.teacher.text][0]
            if student_output.shape[1] != teacher_output.shape[1]:
                raise ValueError(f'the student has {student_output.shape[1]} classes and the teacher '
                                 f'{teacher_output.shape[1]}, so their outputs cannot be compared.')
        with config_key(key):
            kl_divergence(*same_size(student_output, teacher_output), tau=self.tau)
        self._pools = teacher_output.dim() == 2
        self._paths = [MixedPath(stage, ends_in_teacher) for stage in range(len(self.taps) - self._pools)
                       for ends_in_teacher in (True, False)]
        if not 0 <= self.paths <= len(self._paths):
            raise ConfigError(f'{key}.paths: {len(self.taps)} stage(s) give {len(self._paths)} mixed paths here, '
                              f'got {self.paths!r}.')

    def forward(self, student: TappedPass, teachers: Sequence[TappedPass]) -> dict[str, Tensor]:
        [teacher] = teachers
        own, targets = self._student.features(student), self._teacher.features(teacher)
        logits = teacher[self.output.teacher.text][0]
        bridged = [same_size(bridge(s), t)[0] for bridge, s, t in zip(self.to_teacher, own, targets)]
        loss_appearance = appearance(bridged, targets, pool_last=self._pools)
        loss_function = loss_appearance.new_zeros(())
        paths = self._draw()
        for stage, ends_in_teacher in paths:
            if ends_in_teacher:
                with batch_statistics(teacher.model):
                    later, mixed = self._teacher.run_from(stage, teacher, bridged[stage])
                if later:
                    loss_appearance = loss_appearance + appearance(later, targets[stage + 1:], pool_last=self._pools)
            else:
                feature = same_size(self.to_student[stage](targets[stage]), own[stage])[0]
                with untracked_statistics(student.model):
                    _, mixed = self._student.run_from(stage, student, feature)
            loss_function = loss_function + kl_divergence(*same_size(mixed, logits), tau=self.tau)
        idle = [bridge for stage, bridge in enumerate(self.to_student) if MixedPath(stage, False) not in paths]
        return dict(loss_appearance=self.appearance_weight * loss_appearance,
                    loss_function=self.function_weight * loss_function
                    + keep_in_graph(parameter for bridge in idle for parameter in bridge.parameters()))

    def _draw(self) -> list[MixedPath]:
        """The mixed paths of this iteration, from its number: all processes draw alike, and so does a resumed run."""
        iteration = MessageHub.get_current_instance().get_info('iter')
        draw = random if iteration is None else random.Random(iteration)
        return draw.sample(self._paths, self.paths)


def _bridge(source: Tensor, target: Tensor) -> Bridge:
    # Only a feature after a ReLU has no negative value at all.
    return Bridge(shape_of(source), shape_of(target), activated=bool((target >= 0).all()))
