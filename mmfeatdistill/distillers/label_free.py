"""A student that learns from its teachers alone, on images without labels."""
import copy
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Optional, Union

import torch
from mmengine import registry as root
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmfeatdistill.distillers.batch_errors import explain_batch_errors, image_fault
from mmfeatdistill.distillers.building import build_student
from mmfeatdistill.distillers.feature_distiller import _IDLE, FeatureDistiller
from mmfeatdistill.distillers.preparing import prepare_objectives
from mmfeatdistill.distillers.unlabeled_batch import take_unlabeled
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.objectives import Objective
from mmfeatdistill.objectives.base import keep_in_graph
from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.dry_run import probe, run_entry
from mmfeatdistill.taps.isolation import training_isolated
from mmfeatdistill.taps.reader import Features, TappedPass, TapReader
from mmfeatdistill.taps.training_run import unlabeled_passes


@MODELS.register_module()
class LabelFreeDistiller(FeatureDistiller):
    r"""Trains a student by its objectives only: its own loss is not computed, and no label is looked at.

    .. math:: L = \sum_o w_o L_o(f_S(x), f_T(x))

    The student runs in training mode up to the last place that is read, and what comes after it does not run: a
    detector of which the backbone is tapped costs as much as the backbone. Parameters that no objective reaches, such
    as those of heads, are frozen, so that weight decay leaves them alone and DDP does not wait for them. The saved file
    is the student's own; ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')`` of any MM model takes
    the backbone from it.

    In all else it is a :class:`FeatureDistiller`, so a distillation config becomes label-free by its ``type``.

    Args:
        student (dict | BaseModel): Any MM model config, or that of a backbone alone, which is worn by mmpretrain's
            ``ImageClassifier`` without a head.
        teacher (str | dict | list): See :class:`FeatureDistiller`.
        objectives (dict[str, dict | None]): See :class:`FeatureDistiller`; none that looks at labels.
        data_preprocessor (dict, optional): See :class:`FeatureDistiller`.

    Raises:
        ConfigError: Names the config key, what was given and what would do.

    Examples:
        >>> backbone = dict(type='mmpretrain.ResNet', depth=18, base_channels=8, stem_channels=8)
        >>> distiller = LabelFreeDistiller(backbone, dict(model=dict(type='mmpretrain.ImageClassifier',
        ...     backbone=backbone), checkpoint=None), dict(stage4=dict(type='FeatureMatch', taps=['backbone'],
        ...     loss=dict(type='SquaredError'))), dict(mean=[0.0] * 3, std=[255.0] * 3, to_rgb=True))
        >>> batch = distiller.data_preprocessor(dict(inputs=torch.zeros(2, 3, 64, 64)), training=True)
        >>> sorted(distiller(**batch, mode='loss'))
        ['stage4.loss_0']
    """

    trains_task = False

    def _build_student(self, student: Union[dict, BaseModel, None],
                       data_preprocessor: Union[dict, nn.Module, None]) -> BaseModel:
        return build_student(_with_backbone_worn(student), data_preprocessor)

    def _prepare(self, objectives: Mapping[str, Objective]) -> None:
        for name, objective in objectives.items():
            if objective.needs_labels:
                raise ConfigError(
                    f'model.objectives.{name}: {type(objective).__name__} looks at the labels of a batch, and '
                    f'{type(self).__name__} trains without; use an objective that compares features alone, as in '
                    "dict(type='FeatureMatch', taps=['backbone'], connector=dict(type='ChannelMLP'), "
                    "loss=dict(type='SquaredError')), or the type mmfeatdistill.FeatureDistiller.")
        self.__dict__['entry'] = 'tensor'
        prepare_objectives(objectives, self._attach, self.teachers,
                           lambda model, inputs: unlabeled_passes(model, inputs, self.entry))
        _freeze(self.student, self._reached())
        take_unlabeled(self.student)

    def _attach(self, taps: Sequence[str]) -> TappedPass:
        self.reader = TapReader(self.student, taps, owner='student')
        tapped, self.__dict__['entry'] = probe(self.student, self.reader)
        self.__dict__['dry_run'] = tapped
        return tapped

    def _reached(self) -> set[nn.Parameter]:
        """The student's parameters that get a gradient through one of the taps."""
        tapped = self.__dict__.pop('dry_run')
        [run] = unlabeled_passes(self.student, tapped.inputs, self.entry)
        learning = [parameter for parameter in self.student.parameters() if parameter.requires_grad]
        with training_isolated(self.student), torch.enable_grad():
            try:
                features = self.reader.read_until_complete(run, size=tapped.inputs.shape[-2:])
            except Exception as error:
                raise ConfigError(f'model.student: {type(self.student).__name__} does not run without labels in '
                                  f'training ({type(error).__name__}: {error}); tap the backbone or the neck, or give '
                                  'the backbone alone as the student.') from error
            # By a backward pass, not by the graph alone, which does not show what blocks with checkpointing hold.
            sum(tensor.float().sum() for tensors in features.values() for tensor in tensors
                if tensor.requires_grad).backward()
        reached = {parameter for parameter in learning if parameter.grad is not None}
        for parameter in learning:
            parameter.grad = None
        return reached

    def _losses(self, inputs: Tensor, data_samples: Optional[list], **kwargs: Any) -> dict[str, Any]:
        if all(objective.weight == 0 for objective in self.objectives.values()):
            raise RuntimeError(
                f'model.objectives: all of them ({", ".join(self.objectives)}) are switched off by a schedule, and '
                f'{type(self).__name__} has nothing else to train on; let the training end before, or let one stay.')
        return super()._losses(inputs, data_samples, **kwargs)

    def _read_student(self, inputs: Tensor, data_samples: Optional[list],
                      **kwargs: Any) -> tuple[Features, dict[str, Any]]:
        return self.reader.read_until_complete(
            lambda: run_entry(self.student, self.entry, inputs, data_samples), size=inputs.shape[-2:]), {}

    def _explained(self, batch: Any) -> AbstractContextManager:
        return explain_batch_errors(self.student, batch, image_fault)

    def _keep_idle_parameters(self, losses: dict[str, Any]) -> None:
        """Also those of the student: what one objective does not reach is reached by another that is off."""
        losses[_IDLE] = keep_in_graph(parameter for parameter in self.parameters() if parameter.requires_grad)


def _with_backbone_worn(student: Any) -> Any:
    """The config of a student; that of a bare backbone is put into a model that has nothing else."""
    if not isinstance(student, Mapping) or 'type' not in student:
        return student
    with root.MODELS.switch_scope_and_registry(student.get('_scope_')) as registry:
        kind = student['type'] if isinstance(student['type'], type) else registry.get(student['type'])
    if kind is None or not isinstance(kind, type) or issubclass(kind, BaseModel) or not issubclass(kind, nn.Module):
        return student
    student = copy.deepcopy(dict(student))
    return dict(type='mmpretrain.ImageClassifier', backbone=student)


def _freeze(student: nn.Module, reached: Collection[nn.Parameter]) -> None:
    """Lets no optimizer change what no objective trains."""
    left: dict[str, int] = {}
    for name, parameter in student.named_parameters():
        if parameter.requires_grad and parameter not in reached:
            parameter.requires_grad = False
            left[name.partition('.')[0]] = left.get(name.partition('.')[0], 0) + parameter.numel()
    if left:
        listed = ', '.join(f'{count:,} of {part}' for part, count in left.items())
        print_log(f'No objective reaches these parameters of the student, which stay as they are: {listed}.',
                  logger='current')
