"""What the losses of a distillation weigh against each other, and which weights would balance them."""
import copy
import inspect
import math
import os.path as osp
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import Tensor, nn

from mmfeatdistill.distill_config import check_distillation
from mmfeatdistill.distillers import FeatureDistiller
from mmfeatdistill.distillers.building import ADDED
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.objectives.logged import losses_of, task_loss
from mmfeatdistill.registry import MODELS
from mmfeatdistill.zoo.configs import build_runner

_GRADIENT_STEPS = 3
"""Iterations in which gradients are compared; each costs a pass and one backward for every objective."""


@dataclass(frozen=True)
class LossMeasurement:
    """What the losses of a distillation were, over the last iterations of a short training.

    Attributes:
        task (float): Mean of the student's own loss.
        losses (dict[str, dict[str, float]]): Mean of each loss of each objective, without the factors of schedules;
            none of an objective that was off.
        gradients (dict[str, float]): Norm of the gradient of each objective over that of the student's own loss, on the
            student's parameters that the objective reaches.
        batch_size (int): Of each process.
    """

    task: float
    losses: dict[str, dict[str, float]]
    gradients: dict[str, float]
    batch_size: int


class Weight(NamedTuple):
    """A factor of losses in a config.

    Attributes:
        key (str): ``'model.objectives.fpn.loss.loss_weight'``.
        value (float): What it is.
    """

    key: str
    value: float


class Suggestion(NamedTuple):
    """How to weigh an objective.

    Attributes:
        objective (str): Its name.
        loss (float, optional): Mean of its losses; None if it was off.
        ratio (float, optional): That over the student's own loss.
        gradient_ratio (float, optional): See :class:`LossMeasurement`.
        now (tuple[Weight, ...]): Its weights.
        suggested (tuple[Weight, ...]): The same, multiplied by one factor; empty where there is nothing to suggest.
        problem (str): Why not; else empty.
    """

    objective: str
    loss: Optional[float]
    ratio: Optional[float]
    gradient_ratio: Optional[float]
    now: tuple[Weight, ...]
    suggested: tuple[Weight, ...]
    problem: str


def measure_losses(cfg: Config, iterations: int = 50) -> LossMeasurement:
    """Trains a few iterations, and measures the losses over the second half of them.

    It is the beginning of the very training that the config describes, with its data and schedules. In the first half
    the connectors learn. It runs in a temporary folder, without checkpoints, validation and visualization backends.

    Args:
        cfg (Config): A distillation config; it is not changed.
        iterations (int): How many, at least two. Defaults to 50.

    Returns:
        LossMeasurement: The means.

    Raises:
        ConfigError: It is no distillation, or the training ends before.
    """
    check_distillation(cfg)
    cfg = copy.deepcopy(cfg)
    for part in ('cfg', 'dataloader', 'evaluator'):
        cfg[f'val_{part}'] = cfg[f'test_{part}'] = None
    cfg.merge_from_dict(dict(resume=False, launcher='none', log_level='ERROR', default_hooks=dict(checkpoint=None),
                             train_dataloader=dict(persistent_workers=False)))
    meter = _Meter(iterations)
    with tempfile.TemporaryDirectory() as cfg.work_dir:
        # MMEngine hands out visualizers by their name, also one that writes where another training was: neither is this
        # one to have that of the training to come, nor that the one of the measurement before.
        cfg.experiment_name = osp.basename(cfg.work_dir)
        if cfg.get('visualizer') is not None:
            # Nothing may reach the user's dashboards either.
            cfg.visualizer.update(vis_backends=[dict(type='LocalVisBackend')], name=cfg.experiment_name,
                                  save_dir=cfg.work_dir)
        runner = build_runner(cfg)
        # After hooks that set the factors of schedules, before those that change what is logged.
        runner.register_hook(meter, priority='LOWEST')
        try:
            runner.train()
        except _Measured:
            pass
        else:
            raise ConfigError(f'train_cfg: the training ended after {runner.iter} iterations; {iterations} were to be '
                              'measured. Measure fewer.')
    return meter.measurement(cfg.train_dataloader.get('batch_size', 1))


def suggest_weights(cfg: Config, measured: LossMeasurement, ratio: float = 1.0) -> list[Suggestion]:
    """The weights with which the losses of each objective would be in a given ratio to the student's own loss.

    Where an objective has several weights, all are multiplied by one factor, which keeps their balance.

    Args:
        cfg (Config): The config that was measured.
        measured (LossMeasurement): Its losses.
        ratio (float): Loss of an objective over the student's own. Defaults to 1.

    Returns:
        list[Suggestion]: One for each objective; weights have two digits.
    """
    suggestions = []
    for name, losses in measured.losses.items():
        weights = tuple(loss_weights(cfg.model.objectives[name], f'model.objectives.{name}', list(losses)))
        loss = sum(losses.values()) if losses else None
        problem = _problem(loss, measured.task, weights)
        factor = 0.0 if problem or loss is None else ratio * measured.task / loss
        suggestions.append(Suggestion(
            name, loss, None if loss is None else loss / measured.task, measured.gradients.get(name), weights,
            () if problem else tuple(Weight(key, float(f'{value * factor:.2g}')) for key, value in weights), problem))
    return suggestions


def loss_weights(cfg: Mapping, key: str, losses: Sequence[str] = ()) -> Iterator[Weight]:
    """The weights of an objective, where its config has or could have them.

    A loss that is logged as ``loss_<name>`` has ``<name>_weight`` where the objective has such an option; else
    ``loss_weight`` of the objective counts for all, or that of its ``loss``.

    Args:
        cfg (dict): Of an objective.
        key (str): Where it stands in the config.
        losses (Sequence[str]): What it logs.

    Yields:
        Weight: The key, and what is given there or the default.

    Examples:
        >>> list(loss_weights(dict(type='OFD', taps=['neck']), 'model.objectives.ofd', ['loss_0']))
        [Weight(key='model.objectives.ofd.loss_weight', value=0.0001)]
        >>> list(loss_weights(dict(type='FCFD', appearance_weight=2), 'fcfd', ['loss_appearance', 'loss_function']))
        [Weight(key='fcfd.appearance_weight', value=2), Weight(key='fcfd.function_weight', value=1.0)]
    """
    named = [f'{name.removeprefix("loss_")}_weight' for name in losses]
    found = [weight for option in dict.fromkeys(named) for weight in _weight(cfg, key, option)]
    if not found:
        found = list(_weight(cfg, key, 'loss_weight'))
    if not found and isinstance(cfg.get('loss'), Mapping):
        found = list(_weight(cfg['loss'], f'{key}.loss', 'loss_weight'))
    yield from found


def _weight(cfg: Mapping, key: str, option: str) -> Iterator[Weight]:
    """An option of a config's class, if there is one."""
    cls = MODELS.get(cfg['type']) if isinstance(cfg['type'], str) else cfg['type']
    parameter = inspect.signature(cls).parameters.get(option) if cls is not None else None
    if parameter is not None:
        yield Weight(f'{key}.{option}', cfg.get(option, parameter.default))


def _problem(loss: Optional[float], task: float, weights: Sequence[Weight]) -> str:
    if loss is None:
        return 'a schedule keeps it off in these iterations, so there was nothing to measure'
    if not weights:
        return 'it has no option that weighs its losses'
    if not (math.isfinite(loss) and math.isfinite(task)):
        return 'a loss is not finite'
    if loss <= 0 or task <= 0:
        return f'the losses have to be positive: {loss:.3g}, and the student\'s own {task:.3g}'
    return ''


class _Measured(BaseException):
    """Ends a training; no ``except Exception`` on the way may swallow it."""


class _Meter(Hook):
    """Notes losses and gradients in the second half of some iterations, and ends the training after them."""

    def __init__(self, iterations: int) -> None:
        if iterations < 2:
            raise ValueError(f'iterations: expected at least 2, got {iterations}.')
        self._iterations = iterations
        self._seen = 0
        self._task: list[float] = []
        self._losses: dict[str, dict[str, list[float]]] = {}
        self._gradients: dict[str, list[float]] = {}

    def before_train(self, runner: Any) -> None:
        """Refuses a distiller whose student's own loss is not computed."""
        if not runner.model.trains_task:
            raise ConfigError(f'model.type: {type(runner.model).__name__} computes no loss of a task, so there is '
                              'nothing to weigh an objective against; weights matter between several objectives only.')

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Compares gradients in the last iterations."""
        if self._seen >= max(self._iterations - _GRADIENT_STEPS, self._iterations // 2):
            with runner.optim_wrapper.optim_context(runner.model):
                norms = gradient_ratios(runner.model, copy.deepcopy(data_batch))
            for name, value in norms.items():
                self._gradients.setdefault(name, []).append(value)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                         outputs: Optional[Mapping] = None) -> None:
        self._seen += 1
        if self._seen > self._iterations // 2:
            self._note(runner.model, outputs or {})
        if self._seen == self._iterations:
            raise _Measured

    def measurement(self, batch_size: int) -> LossMeasurement:
        """The means."""
        losses = {name: {loss: statistics.fmean(values) for loss, values in noted.items()}
                  for name, noted in self._losses.items()}
        return LossMeasurement(statistics.fmean(self._task), losses,
                               {name: statistics.fmean(values) for name, values in self._gradients.items()}, batch_size)

    def _note(self, model: FeatureDistiller, outputs: Mapping[str, Any]) -> None:
        self._task.append(float(task_loss(outputs, list(model.objectives))))
        for name, objective in model.objectives.items():
            noted = self._losses.setdefault(name, {})
            for loss, value in losses_of(outputs, name).items():
                factor = objective.factor_of(loss)
                if factor:
                    noted.setdefault(loss, []).append(float(value) / factor)


def gradient_ratios(model: FeatureDistiller, data: Mapping) -> dict[str, float]:
    r"""How hard each objective pulls at the student, compared with the student's own loss.

    .. math:: \frac{\|\nabla_\theta L_\mathrm{objective}\|}{\|\nabla_\theta L_\mathrm{task}\|}

    with the student's parameters :math:`\theta` that the objective reaches, and the weights and schedules as they are.

    Args:
        model (FeatureDistiller): In training mode; gradients that are stored in it stay.
        data (dict): A raw batch, as a data loader gives it.

    Returns:
        dict[str, float]: By objective; without those that are off.
    """
    batch = model.data_preprocessor(data, True)
    losses = model(**batch, mode='loss')
    parts = {name: {key: value for key, value in losses.items() if key.startswith(f'{name}.')}
             for name in model.objectives}
    own = {key: value for key, value in losses.items() if not any(key in part for part in parts.values())}
    parameters = [parameter for name, parameter in model.named_parameters()
                  if parameter.requires_grad and not name.startswith(f'{ADDED}.')]
    task = _gradient(model, own, parameters)
    ratios = {}
    for name, part in parts.items():
        gradient = _gradient(model, part, parameters) if part else []
        reached = [index for index, value in enumerate(gradient) if value is not None]
        norm = _norm(task[index] for index in reached)
        if reached and norm > 0:
            ratios[name] = _norm(gradient[index] for index in reached) / norm
    return ratios


def _gradient(model: FeatureDistiller, losses: dict[str, Tensor],
              parameters: Sequence[nn.Parameter]) -> Sequence[Optional[Tensor]]:
    total, _ = model.parse_losses(losses)
    return torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True) if total.requires_grad else []


def _norm(gradients: Iterator[Optional[Tensor]]) -> float:
    return math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients if gradient is not None))
