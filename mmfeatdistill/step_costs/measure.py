"""What a distilled training step costs, compared with the sum of its parts."""
import copy
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import median
from typing import Any, Optional

import torch
from mmengine import registry as root
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.runner import Runner
from torch import nn

from mmfeatdistill.distill_config import buildable
from mmfeatdistill.distillers.building import ADDED
from mmfeatdistill.step_costs.median import Median, median_of
from mmfeatdistill.step_costs.memory import peak_of, size_of
from mmfeatdistill.taps.reader import TappedPass
from mmfeatdistill.taps.tracing import tensors_in
from mmfeatdistill.teacher.automatic_acceleration import BATCHES
from mmfeatdistill.teacher.teacher import Teacher

PARTS = ('student', 'teacher', 'objectives', 'distilled')
_MIB = 2**20
_LEAST_ROUNDS = 10


@dataclass(frozen=True)
class StepCosts:
    """Costs of a distilled step and of its parts.

    The parts are ``student``, a step of the student alone (forward, backward, optimizer); ``teacher``, the teachers to
    their last taps; ``objectives``, connectors and losses with their backward and optimizer on tensors of the same
    shapes; ``distilled``, the distilled step; and, where teachers have options of ``acceleration``, ``plain_teacher``,
    the same without. Memory is also given for ``floor``, the least that a distilled step could take: what is held
    anyway, and the greater of what the teachers take by themselves, and of the student alone with the tapped features
    and what connectors and losses take; and for ``bare``, the same without connectors and losses.

    Attributes:
        rounds (int): Rounds that count; times and ratios are their medians.
        seconds (dict[str, float]): Time of each part, on a CPU that of the processor.
        ratio (Median): Distilled step over student, teacher and objectives.
        plain_ratio (Median): Distilled step over student and plain teacher.
        by_hand (Median): Student, plain teacher and objectives over student and plain teacher: at least what a step
            costs whose teacher is one's own hooks and ``no_grad``.
        peak_mib (dict[str, float]): Memory that each part adds at its peak to what is held before it.
        memory_mib (dict[str, float]): All memory at the peak of ``student``, ``distilled``, ``floor`` and ``bare``.
        difference (float): By how much ``acceleration`` changes the teachers' features, relative to the largest.
        operators (dict[str, float]): The operators that take most of a distilled step, with their parts of its time.
    """

    rounds: int
    seconds: dict[str, float]
    ratio: Median
    plain_ratio: Median
    by_hand: Median
    peak_mib: dict[str, float]
    memory_mib: dict[str, float]
    difference: float
    operators: dict[str, float]


def measure_step(cfg: Config, rounds: int = 200, within: float = 0.01, warmup: int = 3, device: str = 'cpu',
                 batch: Optional[dict] = None) -> StepCosts:
    """Measures a distillation config on one batch.

    All parts are timed in turn in every round, in one process, with identical weights: the student alone
    is a copy of the distilled one, and the learning rate is zero, as other weights would make other
    proposals. They draw the same random numbers. Ratios are taken within each round, as whatever else a machine does
    may slow it down for longer than that.

    Args:
        cfg (Config): A distillation config.
        rounds (int): Rounds that count, at most. Defaults to 200.
        within (float): Fewer, but ten, once the ratio is known this well to either side. Defaults to 0.01.
        warmup (int): Rounds before them. Defaults to 3.
        device (str): ``'cpu'`` or ``'cuda'``. Defaults to ``'cpu'``.
        batch (dict, optional): As a data loader gives it. Defaults to None: the first of the config's training data.

    Returns:
        StepCosts: Medians of the rounds.
    """
    step = _Step(cfg, device, batch)
    runs = {part: getattr(step, part) for part in (*PARTS, *(['plain_teacher'] if step.plain_teachers else []))}
    rows: list[dict[str, float]] = []
    for number in range(warmup + rounds):
        row = _round(runs, number, device)
        if number >= warmup:
            rows.append(row)
        if len(rows) >= _LEAST_ROUNDS and _over(rows, PARTS[:3]).error <= within:
            break
    peaks = {part: peak_of(run, device) for part, run in runs.items()}
    plain = 'student', 'plain_teacher' if step.plain_teachers else 'teacher'
    return StepCosts(
        rounds=len(rows),
        seconds={part: median(row[part] for row in rows) for part in runs},
        ratio=_over(rows, PARTS[:3]),
        plain_ratio=_over(rows, plain),
        by_hand=median_of(sum(row[part] for part in (*plain, 'objectives')) / sum(row[part] for part in plain)
                          for row in rows),
        peak_mib={part: value / _MIB for part, value in peaks.items()},
        memory_mib={name: value / _MIB for name, value in step.memory(peaks).items()},
        difference=step.difference,
        operators=_operators(step.distilled, device))


def _round(runs: Mapping[str, Callable[[], None]], number: int, device: str) -> dict[str, float]:
    """The seconds of each part, every second time in reverse order, as drifts of the machine's speed then cancel."""
    seconds = {}
    for part in list(runs) if number % 2 == 0 else reversed(list(runs)):
        torch.manual_seed(number)
        started = _now(device)
        runs[part]()
        seconds[part] = _now(device) - started
    return seconds


def _over(rows: Sequence[Mapping[str, float]], parts: Sequence[str]) -> Median:
    """The distilled step over the sum of parts, as the rounds show it."""
    return median_of(row['distilled'] / sum(row[part] for part in parts) for row in rows)


class _Step:
    """A distilled step and its parts, ready to run."""

    def __init__(self, cfg: Config, device: str, batch: Optional[dict]) -> None:
        cfg = copy.deepcopy(cfg)
        cfg.model = buildable(cfg)
        cfg.optim_wrapper.optimizer.lr = 0.0
        # What a runner keeps there: some data preprocessors change the size of images every few iterations.
        MessageHub.get_current_instance().update_info('iter', 0)
        self._distiller = _ready(cfg.model, device)
        self._student = _ready(cfg.model.student, device)
        self._student.load_state_dict({name: value for name, value in self._distiller.state_dict().items()
                                       if not name.startswith(f'{ADDED}.')})
        self._distilled_optim = build_optim_wrapper(self._distiller, cfg.optim_wrapper)
        self._student_optim = build_optim_wrapper(self._student, cfg.optim_wrapper)
        has_own = any(parameter.requires_grad for parameter in self._added.parameters())
        self._objectives_optim = build_optim_wrapper(self._added, cfg.optim_wrapper) if has_own else None
        self._data = batch or next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
        self.plain_teachers = self._build_plain_teachers(cfg, device)
        self._capture()
        # Before weights are packed, which are in no state dict then.
        self._teacher_bytes = size_of(
            tensor for teacher in self._distiller.teachers for tensor in teacher.model.state_dict().values())
        self._choose_acceleration()

    @property
    def difference(self) -> float:
        """By how much ``acceleration`` changes the teachers' features."""
        return max(teacher.acceleration_difference for teacher in self._distiller.teachers)

    def student(self) -> None:
        """One training step of the student alone."""
        self._student.train_step(copy.deepcopy(self._data), self._student_optim)

    def teacher(self) -> None:
        """Every teacher up to its last tap."""
        self._run(self._distiller.teachers)

    def plain_teacher(self) -> None:
        """The same without what makes them cheaper."""
        self._run(self.plain_teachers)

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
        for tensor in tensors_in(self._read.features):
            tensor.grad = None

    def distilled(self) -> None:
        """One distilled training step."""
        self._distiller.train_step(copy.deepcopy(self._data), self._distilled_optim)

    def memory(self, peaks: Mapping[str, int]) -> dict[str, int]:
        """Bytes at the peak of a distilled step, and the least that they could be.

        Args:
            peaks (Mapping[str, int]): What each part adds at its peak to what is held before it.

        Returns:
            dict[str, int]: See :class:`StepCosts`.
        """
        held = self._teacher_bytes + size_of([*self._distiller.state_dict().values(), *_state(self._distilled_optim)])
        taps = size_of(tensor for target in self._targets for tensor in tensors_in(target.features))
        reading = size_of([self._inputs]) + peaks['teacher']
        alone = size_of([*self._student.state_dict().values(), *_state(self._student_optim)])
        return dict(student=alone + peaks['student'], distilled=held + peaks['distilled'],
                    floor=held + max(reading, peaks['student'] + taps + peaks['objectives']),
                    bare=held + max(reading, peaks['student'] + taps))

    @property
    def _added(self) -> nn.Module:
        return self._distiller.distiller

    def _run(self, teachers: list[Teacher]) -> None:
        with self._precision():
            for teacher in teachers:
                teacher(self._inputs, self._samples)

    def _build_plain_teachers(self, cfg: Config, device: str) -> list[Teacher]:
        """The teachers without options, if there are options."""
        plain = copy.deepcopy(cfg.model)
        options = [teacher.get('acceleration', 'auto') for teacher in plain.teacher]
        for teacher in plain.teacher:
            teacher.acceleration = None
        return _ready(plain, device).teachers if any(options) else []

    def _choose_acceleration(self) -> None:
        """Lets teachers choose for this batch what a training would let them choose for its own."""
        for teacher in self._distiller.teachers:
            teacher.start_training()
        for _ in range(BATCHES):
            self.teacher()

    def _capture(self) -> None:
        """Keeps a batch as the teachers see it, and features as the objectives see them."""
        data = self._distiller.data_preprocessor(copy.deepcopy(self._data), True)
        self._inputs, self._samples = data['inputs'], data['data_samples']
        self._find_statistics()
        with torch.no_grad(), self._precision():
            features, _ = self._distiller.reader.read(
                lambda: self._distiller.student(self._inputs, self._samples, mode='loss'))
            self._targets = [teacher(self._inputs, self._samples) for teacher in self._distiller.teachers]
        self._read = TappedPass({tap: [tensor.detach().requires_grad_() for tensor in tensors]
                              for tap, tensors in features.items()},
                             self._distiller.reader, self._inputs, self._samples)

    def _find_statistics(self) -> None:
        """Lets objectives see the batch that must see training images before the first iteration."""
        wanting = self._distiller.images_wanted()
        self._distiller.update_statistics(self._inputs, self._samples, wanting)
        self._distiller.finish_statistics(wanting)

    def _precision(self) -> AbstractContextManager:
        """Mixed, where the config trains so."""
        return self._distilled_optim.optim_context(self._distiller)


def _ready(cfg: Config, device: str) -> nn.Module:
    torch.manual_seed(0)
    model = root.MODELS.build(cfg)
    model.init_weights()
    if device == 'cpu':
        model = revert_sync_batchnorm(model)
    return model.to(device).train()


def _state(optim_wrapper: OptimWrapper) -> list[torch.Tensor]:
    return list(tensors_in([dict(state) for state in optim_wrapper.optimizer.state.values()]))


def _now(device: str) -> float:
    if device == 'cpu':
        # Not the clock: others may use the processor too.
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _operators(run: Callable[[], None], device: str, count: int = 8) -> dict[str, float]:
    activity = torch.profiler.ProfilerActivity.CPU if device == 'cpu' else torch.profiler.ProfilerActivity.CUDA
    with torch.profiler.profile(activities=[activity]) as profile:
        run()
    own = {event.key: event.self_cpu_time_total if device == 'cpu' else
           getattr(event, 'self_device_time_total', getattr(event, 'self_cuda_time_total', 0))
           for event in profile.key_averages()}
    total = sum(own.values()) or 1
    return {name: own[name] / total for name in sorted(own, key=own.__getitem__, reverse=True)[:count]}
