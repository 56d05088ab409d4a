"""Experiments: trainings that run in a process of their own, resume by themselves, and report."""
import hashlib
import json
import multiprocessing
import os
import os.path as osp
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Optional

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmfeatdistill.files import write_whole
from mmfeatdistill.zoo import load_config

Inspect = Callable[[Runner], None]
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Experiment:
    """A training and its evaluation.

    Attributes:
        config (str): Config file.
        work_dir (str): Where it leaves its checkpoints, logs and result.
        options (dict): Overrides of the config, as ``--cfg-options`` takes them.
        depends_on (tuple[str, ...]): What else its result depends on, such as the fingerprint of the teacher's
            training or of the data.
    """

    config: str
    work_dir: str
    options: dict[str, Any] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()

    def load(self) -> Config:
        """The config as it is run."""
        cfg = load_config(self.config)
        cfg.merge_from_dict(self.options)
        cfg.work_dir = self.work_dir
        cfg.resume = True
        return cfg


@dataclass(frozen=True)
class Result:
    """What an experiment has shown.

    Attributes:
        metrics (dict[str, float]): Of the last evaluation, under mmengine's names.
        checkpoint (str): The last checkpoint.
        seconds_per_iter (float): Median over the training.
        seconds (float): Of the whole training in this process, evaluation included.
        peak_memory_mib (float): Peak resident memory of the process.
        fingerprint (str): Of the config that it was run with, and of what else it depends on.
    """

    metrics: dict[str, float]
    checkpoint: str
    seconds_per_iter: float
    seconds: float
    peak_memory_mib: float
    fingerprint: str


def run_experiment(experiment: Experiment, on_progress: Optional[Progress] = None,
                   inspect: Optional[Inspect] = None) -> Result:
    """Runs an experiment, or continues it, or reads its result if it is finished.

    It runs in a child process, so that memory is measured by itself and a crash stays its own; the child
    ends when this process does. Its console output goes to ``console.log`` in the work directory. A work
    directory of another config is moved aside.

    Args:
        experiment (Experiment): What to run.
        on_progress (Callable, optional): Called with the fraction done and a short text.
        inspect (Callable, optional): Called in the child with the trained runner, to draw pictures.

    Returns:
        Result: Also written to ``result.json`` in the work directory, at once and whole.

    Raises:
        RuntimeError: The training failed; the end of its output is in the message.
    """
    fingerprint = _fingerprint(experiment)
    result = _finished(experiment.work_dir, fingerprint)
    if result is None:
        _claim(experiment.work_dir, fingerprint)
        _run_in_child(experiment, fingerprint, on_progress or (lambda fraction, text: None), inspect)
        result = _finished(experiment.work_dir, fingerprint)
        if result is None:
            raise RuntimeError(f'{experiment.work_dir}: the training ended without a result.')
    return result


def _run_in_child(experiment: Experiment, fingerprint: str, on_progress: Progress,
                  inspect: Optional[Inspect]) -> None:
    # Forked, so that the libraries are imported once for all experiments.
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(experiment, fingerprint, receiver, sender, inspect))
    child.start()
    sender.close()
    try:
        while True:
            try:
                on_progress(*receiver.recv())
            except EOFError:
                break
        child.join()
    finally:
        if child.is_alive():
            child.kill()
    if child.exitcode != 0:
        raise RuntimeError(f'{experiment.config} failed with exit code {child.exitcode}; the end of '
                           f'{_console(experiment)}:\n{_tail(_console(experiment))}')


def _child(experiment: Experiment, fingerprint: str, receiver: Connection, sender: Connection,
           inspect: Optional[Inspect]) -> None:
    # Closed here, so that sending fails, and this process ends, when the parent is gone.
    receiver.close()
    with open(_console(experiment), 'ab', buffering=0) as console:
        os.dup2(console.fileno(), sys.stdout.fileno())
        os.dup2(console.fileno(), sys.stderr.fileno())
    started = time.monotonic()
    runner = Runner.from_cfg(experiment.load())
    report = _ReportProgress(sender)
    runner.register_hook(report, priority='LOWEST')
    runner.train()
    # A training that was finished before it was resumed has not been evaluated here.
    metrics = report.metrics or runner.val()
    if inspect is not None:
        inspect(runner)
    result = Result(
        metrics={name: float(value) for name, value in metrics.items()},
        checkpoint=_last_checkpoint(experiment.work_dir),
        seconds_per_iter=_median_seconds(experiment.work_dir),
        seconds=time.monotonic() - started,
        peak_memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        fingerprint=fingerprint)
    write_whole(_result_file(experiment.work_dir), json.dumps(asdict(result), indent=2))
    sender.close()
    sys.stdout.flush()
    sys.stderr.flush()
    # Data workers of a forked process must not run the parent's exit handlers.
    os._exit(0)


class _ReportProgress(Hook):
    """Sends the fraction of the training that is done to the parent process."""

    def __init__(self, sender: Connection) -> None:
        self.sender = sender
        self.metrics: dict[str, float] = {}

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                         outputs: Optional[dict] = None) -> None:
        """Reports an iteration; the last one waits for the evaluation."""
        done = min(0.99, (runner.iter + 1) / runner.max_iters)
        self.sender.send((done, f'iteration {runner.iter + 1}/{runner.max_iters}'))

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                       outputs: Any = None) -> None:
        """Reports that it is evaluating."""
        done = min(0.99, runner.iter / runner.max_iters)
        self.sender.send((done, f'evaluating {batch_idx + 1}/{len(runner.val_dataloader)}'))

    def after_val_epoch(self, runner: Any, metrics: Optional[dict[str, float]] = None) -> None:
        """Keeps the metrics of the last evaluation."""
        self.metrics = dict(metrics or {})


def _fingerprint(experiment: Experiment) -> str:
    content = [experiment.load().to_dict(), experiment.depends_on]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _finished(work_dir: str, fingerprint: str) -> Optional[Result]:
    if not osp.isfile(_result_file(work_dir)):
        return None
    with open(_result_file(work_dir)) as file:
        result = Result(**json.load(file))
    return result if result.fingerprint == fingerprint and osp.isfile(result.checkpoint) else None


def _claim(work_dir: str, fingerprint: str) -> None:
    """Takes a work directory for one config; what another config left there is moved aside."""
    owner = osp.join(work_dir, 'fingerprint.txt')
    if osp.isfile(owner):
        with open(owner) as file:
            if file.read() == fingerprint:
                return
        os.rename(work_dir, f'{work_dir}.{time.strftime("%Y%m%d_%H%M%S")}')
    os.makedirs(work_dir, exist_ok=True)
    write_whole(owner, fingerprint)


def _last_checkpoint(work_dir: str) -> str:
    with open(osp.join(work_dir, 'last_checkpoint')) as file:
        return file.read().strip()


def _median_seconds(work_dir: str) -> float:
    """Median time of an iteration, from all logs that the training left."""
    times = [line['time'] for log in read_scalars(work_dir) for line in log if 'loss' in line and 'time' in line]
    return statistics.median(times[1:] or times or [float('nan')])


def read_scalars(work_dir: str) -> list[list[dict[str, float]]]:
    """The logged scalars of a work directory.

    Args:
        work_dir (str): Of one training, perhaps resumed several times.

    Returns:
        list[list[dict]]: The lines of each start, oldest first.
    """
    logs = []
    for start in sorted(os.listdir(work_dir)):
        path = osp.join(work_dir, start, 'vis_data', 'scalars.json')
        if osp.isfile(path):
            with open(path) as file:
                logs.append([json.loads(line) for line in file if line.strip().endswith('}')])
    return logs


def _console(experiment: Experiment) -> str:
    return osp.join(experiment.work_dir, 'console.log')


def _result_file(work_dir: str) -> str:
    return osp.join(work_dir, 'result.json')


def _tail(path: str, lines: int = 20) -> str:
    with open(path, errors='replace') as file:
        return ''.join(file.readlines()[-lines:])


