"""Running experiments side by side, each after those that it needs."""
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from graphlib import TopologicalSorter
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.connection import Connection, wait
from typing import Optional

import torch
from mmengine.device import is_cuda_available

from mmfeatdistill.experiments.child_process import Child, sigterm_raises
from mmfeatdistill.experiments.experiment import Experiment, Result

OnProgress = Callable[[Experiment, int, int, str], None]
OnResult = Callable[[Experiment, Result], None]


class ExperimentsFailed(RuntimeError):
    """Some experiments failed; all that could be finished is finished.

    Attributes:
        failures (dict[Experiment, str]): What each of them said last.
    """

    def __init__(self, failures: dict[Experiment, str]) -> None:
        super().__init__('\n\n'.join(f'{experiment.work_dir}: {text}' for experiment, text in failures.items()))
        self.failures = failures


def default_jobs() -> int:
    """How many experiments run side by side where nobody says: one on each GPU, else one per core, up to four."""
    devices = visible_devices()
    if devices:
        return len(devices)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return min(4, cores)


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them.

    Returns:
        list[str]: Numbers or unique names; empty without a GPU.
    """
    if not is_cuda_available():
        return []
    count = torch.cuda.device_count()
    named = os.environ.get('CUDA_VISIBLE_DEVICES')
    return named.split(',')[:count] if named else [str(index) for index in range(count)]


def with_needs(experiments: Iterable[Experiment]) -> list[Experiment]:
    """Experiments together with all that they need, each once and after what it needs.

    Args:
        experiments (Iterable[Experiment]): What is wanted.

    Returns:
        list[Experiment]: In the order given otherwise.
    """
    ordered: dict[Experiment, None] = {}
    for experiment in experiments:
        ordered.update(dict.fromkeys([*with_needs(experiment.needs.values()), experiment]))
    return list(ordered)


def run_experiments(experiments: Iterable[Experiment], jobs: Optional[int] = None, threads: int = 1,
                    on_progress: OnProgress = lambda *_: None,
                    on_result: OnResult = lambda *_: None) -> dict[Experiment, Result]:
    """Runs experiments and those that they need, continues them, or reads their results if they are finished.

    Each runs in a child process, so that memory is measured on its own and a crash stays its own. Its output
    goes to ``console.log`` in its work directory. A failed one stops only those that need it. All children end
    with this process, whatever ends it. Where there are GPUs, each child sees one, the one with the fewest children.

    The number of threads of an experiment is fixed, and so its result does not depend on ``jobs``.

    Args:
        experiments (Iterable[Experiment]): What to run; earlier ones are started earlier.
        jobs (int, optional): How many run side by side. Defaults to None: :func:`default_jobs`.
        threads (int): Torch threads of each. Defaults to 1.
        on_progress (Callable, optional): Called with the experiment, its iterations done, of how many, and a
            short text.
        on_result (Callable, optional): Called with the experiment and its result as soon as there is one.

    Returns:
        dict[Experiment, Result]: Also of those that were needed.

    Raises:
        ExperimentsFailed: After all others are finished.
        ValueError: Two experiments have the same work directory.
    """
    ordered = with_needs(experiments)
    for work_dir, count in Counter(os.path.realpath(experiment.work_dir) for experiment in ordered).items():
        if count > 1:
            raise ValueError(f'{count} different experiments have the work directory {work_dir!r}.')
    run = _Run(ordered, jobs or default_jobs(), threads, on_progress, on_result)
    with sigterm_raises():
        try:
            run.to_the_end()
        finally:
            run.kill()
    if run.failures:
        raise ExperimentsFailed(run.failures)
    return run.results


class _Run:
    """The state of :func:`run_experiments`; a single thread that waits for what the children send."""

    def __init__(self, ordered: list[Experiment], jobs: int, threads: int, on_progress: OnProgress,
                 on_result: OnResult) -> None:
        self.ordered = ordered
        self.order = TopologicalSorter({experiment: experiment.needs.values() for experiment in ordered})
        self.order.prepare()
        self.ready: set[Experiment] = set()
        self.running: dict[Connection, tuple[Experiment, Child, Optional[str]]] = {}
        self.devices = visible_devices()
        self.results: dict[Experiment, Result] = {}
        self.failures: dict[Experiment, str] = {}
        self.jobs = jobs
        self.threads = threads
        self.on_progress = on_progress
        self.on_result = on_result

    def to_the_end(self) -> None:
        """Runs whatever can be run."""
        while self.order.is_active():
            self.ready.update(self.order.get_ready())
            if self.ready and len(self.running) < self.jobs:
                experiment = min(self.ready, key=self.ordered.index)
                self.ready.remove(experiment)
                self._begin(experiment)
            else:
                for receiver in wait(list(self.running)):
                    assert isinstance(receiver, Connection), 'only those of children are waited for'
                    self._receive(receiver)

    def kill(self) -> None:
        """Ends all children."""
        for _, child, _ in self.running.values():
            child.kill()

    def _begin(self, experiment: Experiment) -> None:
        """Starts an experiment unless it is finished before, or cannot be run."""
        failed = [need.work_dir for need in experiment.needs.values() if need in self.failures]
        result = experiment.result()
        if failed:
            self._failed(experiment, f'not run, as {failed[0]} failed.')
        elif result is not None:
            self._finished(experiment, result)
        else:
            self._start(experiment)

    def _start(self, experiment: Experiment) -> None:
        experiment.claim()
        checkpoints = {key: self.results[need].checkpoint for key, need in experiment.needs.items()}
        _import_library(experiment.load(checkpoints).get('default_scope'))
        taken = Counter(device for _, _, device in self.running.values())
        device = min(self.devices, key=lambda name: taken[name], default=None)
        with _sees_only(device):
            child = Child(partial(experiment.train, checkpoints), experiment.console, self.threads)
        self.running[child.receiver] = experiment, child, device

    def _receive(self, receiver: Connection) -> None:
        experiment, child, _ = self.running[receiver]
        message = child.receive()
        if message is not None:
            self.on_progress(experiment, *message)
            return
        code = child.join()
        del self.running[receiver]
        result = experiment.result()
        if result is not None:
            self._finished(experiment, result)
        else:
            text = f'failed with exit code {code}; the end of {child.console}:\n{child.last_lines()}'
            experiment.mark_failed(text)
            self._failed(experiment, text)

    def _failed(self, experiment: Experiment, text: str) -> None:
        self.failures[experiment] = text
        self.order.done(experiment)  # what needs it is not run, but has its turn to say so

    def _finished(self, experiment: Experiment, result: Result) -> None:
        self.results[experiment] = result
        self.order.done(experiment)
        self.on_result(experiment, result)


@contextmanager
def _sees_only(device: Optional[str]) -> Iterator[None]:
    """Processes that are started meanwhile see this GPU alone; this one has looked for its own before."""
    if device is None:
        yield
        return
    before = os.environ.get('CUDA_VISIBLE_DEVICES')
    os.environ['CUDA_VISIBLE_DEVICES'] = device
    try:
        yield
    finally:
        if before is None:
            del os.environ['CUDA_VISIBLE_DEVICES']
        else:
            os.environ['CUDA_VISIBLE_DEVICES'] = before


def _import_library(scope: Optional[str]) -> None:
    """Imports all of an MM library here, which children that are forked then need not do one by one."""
    if scope is not None and find_spec(scope) is not None and find_spec(f'{scope}.utils') is not None:
        register_all = getattr(import_module(f'{scope}.utils'), 'register_all_modules', None)
        if register_all is not None:
            register_all(init_default_scope=False)
