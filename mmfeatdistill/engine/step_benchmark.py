"""What a distilled training step costs, compared with the sum of its parts."""
import copy
import gc
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Optional

import torch
from mmengine import registry as root
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn

from mmfeatdistill.distillers.feature_distiller import ADDED
from mmfeatdistill.reading import Reading

PARTS = ('student', 'teacher', 'objectives', 'distilled')


class StepCosts(NamedTuple):
    """Costs of a distilled step and of its parts.

    Attributes:
        seconds (dict[str, float]): Median time by part: the student's step alone (forward, backward, optimiser),
            the teachers to their last taps, connectors and losses with their backward and optimiser on
            tensors of the same shapes, and the distilled step.
        ratio (float): Distilled step over the sum of the three parts: the median of the ratios of each round.
        peak_mib (dict[str, float]): Peak memory that each part adds to what is held before it.
        operators (dict[str, float]): The operators that take most of a distilled step, with their parts of its time.
    """

    seconds: dict[str, float]
    ratio: float
    peak_mib: dict[str, float]
    operators: dict[str, float]


def measure_step(cfg: Config, rounds: int = 20, warmup: int = 3, device: str = 'cpu',
                 batch: Optional[dict] = None) -> StepCosts:
    """Measures a distillation config on one batch.

    All parts are timed in turn in every round, in one process, with identical weights: the student alone
    is a copy of the distilled one, and the learning rate is zero, as other weights would make other
    proposals. They draw the same random numbers.

    Args:
        cfg (Config): A distillation config.
        rounds (int): Rounds that count. Defaults to 20.
        warmup (int): Rounds before them. Defaults to 3.
        device (str): ``'cpu'`` or ``'cuda'``. Defaults to ``'cpu'``.
        batch (dict, optional): As a data loader gives it. Defaults to None: the first of the config's training data.

    Returns:
        StepCosts: Medians over the rounds.
    """
    parts = _Parts(cfg, device, batch)
    times: dict[str, list[float]] = {part: [] for part in PARTS}
    for number in range(warmup + rounds):
        for part in PARTS:
            torch.manual_seed(number)
            started = _now(device)
            getattr(parts, part)()
            if number >= warmup:
                times[part].append(_now(device) - started)
    ratios = [distilled / (student + teacher + objectives) for student, teacher, objectives, distilled
              in zip(*(times[part] for part in PARTS))]
    return StepCosts(
        seconds={part: statistics.median(values) for part, values in times.items()},
        ratio=statistics.median(ratios),
        peak_mib={part: _peak_mib(getattr(parts, part), device) for part in PARTS},
        operators=_operators(parts.distilled, device))


class _Parts:
    """The four things that are timed, ready to run."""

    def __init__(self, cfg: Config, device: str, batch: Optional[dict]) -> None:
        cfg = copy.deepcopy(cfg)
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        if cfg.get('data_preprocessor') is not None:
            cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
            cfg.model.student.setdefault('data_preprocessor', cfg.data_preprocessor)
        cfg.optim_wrapper.optimizer.lr = 0.0
        torch.manual_seed(0)
        self._distiller = _ready(root.MODELS.build(cfg.model), device)
        self._student = _ready(root.MODELS.build(cfg.model.student), device)
        self._student.load_state_dict({name: value for name, value in self._distiller.state_dict().items()
                                       if not name.startswith(f'{ADDED}.')})
        self._distilled_optim = build_optim_wrapper(self._distiller, cfg.optim_wrapper)
        self._student_optim = build_optim_wrapper(self._student, cfg.optim_wrapper)
        has_own = any(parameter.requires_grad for parameter in self._distiller.distiller.parameters())
        self._objectives_optim = build_optim_wrapper(self._distiller.distiller, cfg.optim_wrapper) if has_own else None
        self._data = batch or next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
        self._capture()

    def _capture(self) -> None:
        """Keeps a batch as the teachers see it, and features as the objectives see them."""
        data = self._distiller.data_preprocessor(copy.deepcopy(self._data), True)
        self._inputs, self._samples = data['inputs'], data['data_samples']
        self._calibrate()
        with torch.no_grad(), self._precision():
            features, _ = self._distiller.reader.read(
                lambda: self._distiller.student(self._inputs, self._samples, mode='loss'))
            self._targets = [teacher(self._inputs, self._samples) for teacher in self._distiller.teachers]
        self._read = Reading({tap: [tensor.detach().requires_grad_() for tensor in tensors]
                              for tap, tensors in features.items()},
                             self._distiller.reader, self._inputs, self._samples)

    def _calibrate(self) -> None:
        """Lets objectives see the batch that must see training images before the first iteration."""
        wanting = [name for name, objective in self._distiller.objectives.items() if objective.images_wanted]
        self._distiller.observe(self._inputs, self._samples, wanting)
        for name in wanting:
            self._distiller.objectives[name].conclude()

    def _precision(self) -> AbstractContextManager:
        """Mixed, where the config trains so."""
        return self._distilled_optim.optim_context(self._distiller)

    def student(self) -> None:
        """One training step of the student alone."""
        self._student.train_step(copy.deepcopy(self._data), self._student_optim)

    def teacher(self) -> None:
        """Every teacher up to its last tap."""
        with self._precision():
            for teacher in self._distiller.teachers:
                teacher(self._inputs, self._samples)

    def objectives(self) -> None:
        """Connectors and losses, forward and backward, with the step of their own parameters."""
        losses: list[Any] = []
        with self._precision():
            for objective in self._distiller.objectives.values():
                teachers = [self._targets[i] for i in objective.teachers_read(len(self._targets))]
                losses += objective(self._read, teachers).values()
        total = torch.stack(losses).sum()
        if self._objectives_optim is not None:
            self._objectives_optim.update_params(total)
        else:
            total.backward()
        for tensors in self._read.features.values():
            for tensor in tensors:
                tensor.grad = None

    def distilled(self) -> None:
        """One distilled training step."""
        self._distiller.train_step(copy.deepcopy(self._data), self._distilled_optim)


def _ready(model: nn.Module, device: str) -> nn.Module:
    model.init_weights()
    if device == 'cpu':
        model = revert_sync_batchnorm(model)
    return model.to(device).train()


def _now(device: str) -> float:
    if device != 'cpu':
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak_mib(run: Callable[[], None], device: str) -> float:
    """Peak memory while a part runs, above what is held before it."""
    gc.collect()
    if device != 'cpu':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    return _peak_of_allocations(profile) / 2**20


def _operators(run: Callable[[], None], device: str, count: int = 8) -> dict[str, float]:
    activity = torch.profiler.ProfilerActivity.CPU if device == 'cpu' else torch.profiler.ProfilerActivity.CUDA
    with torch.profiler.profile(activities=[activity]) as profile:
        run()
    own = {event.key: event.self_cpu_time_total if device == 'cpu' else
           getattr(event, 'self_device_time_total', getattr(event, 'self_cuda_time_total', 0))
           for event in profile.key_averages()}
    total = sum(own.values()) or 1
    return {name: own[name] / total for name in sorted(own, key=own.__getitem__, reverse=True)[:count]}


def _peak_of_allocations(profile: Any) -> int:
    """The highest running sum of the CPU allocations and releases that a profile has recorded."""
    held = peak = 0
    events = (event for event in profile.profiler.kineto_results.events() if event.name() == '[memory]')
    for event in sorted(events, key=lambda event: event.start_ns() if hasattr(event, 'start_ns') else event.start_us()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
