"""Experiments: trainings that resume by themselves, are done once, and leave a result."""
import copy
import fcntl
import hashlib
import inspect
import json
import os
import os.path as osp
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Optional, Union

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmfeatdistill.atomic_files import atomic_write
from mmfeatdistill.engine.work_dir import read_scalars
from mmfeatdistill.experiments.child_process import Send
from mmfeatdistill.zoo.configs import build_runner, load_config

_WITHOUT_INFLUENCE = {'work_dir', 'resume', 'launcher', 'cfg', 'experiment_name', 'log_level'}
"""Settings of a runner on which no result depends."""


@dataclass(eq=False)
class Experiment:
    """A training and its evaluation.

    Attributes:
        config (str | Config): Config file, or a config that was loaded from one.
        work_dir (str): Where it leaves its checkpoints, logs and result.
        options (dict): Overrides of the config, as ``--cfg-options`` takes them.
        needs (dict[str, Experiment]): Experiments that come first, by the config key that takes their last
            checkpoint, such as ``'model.teacher.checkpoint'`` or ``'model.teacher.0.checkpoint'``.
        depends_on (tuple[str, ...]): What else its result depends on, such as a description of the data.
        inspect (Callable, optional): Called with the trained runner in the training's process, to draw pictures.
    """

    config: Union[str, Config]
    work_dir: str
    options: dict[str, Any] = field(default_factory=dict)
    needs: dict[str, 'Experiment'] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    inspect: Optional[Callable[[Runner], None]] = None

    def load(self, needed: Mapping[str, str]) -> Config:
        """The config as it is run.

        Args:
            needed (Mapping[str, str]): A value for each key of :attr:`needs`.

        Returns:
            Config: A copy.
        """
        cfg = load_config(self.config) if isinstance(self.config, str) else copy.deepcopy(self.config)
        # Merging takes `_delete_` keys out of what is merged.
        cfg.merge_from_dict(copy.deepcopy(self.options))
        cfg.merge_from_dict(dict(needed))
        return cfg

    @cached_property
    def fingerprint(self) -> str:
        """Stands for everything that the result depends on; equal ones are the same experiment.

        What a config file defines in addition to the settings of a runner does not count, nor where results are
        written.
        """
        cfg = self.load({key: need.fingerprint for key, need in self.needs.items()})
        settings = {name: cfg[name] for name in sorted(_settings() - _WITHOUT_INFLUENCE) if name in cfg}
        content = json.dumps([Config(settings).to_dict(), self.depends_on], sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def result(self) -> Optional['Result']:
        """What it has shown, if it is finished."""
        text = self._text('result.json')
        result = Result(**json.loads(text)) if text else None
        return result if result and result.fingerprint == self.fingerprint and osp.isfile(result.checkpoint) else None

    def failure(self) -> Optional[str]:
        """The end of the output of its last run, if that failed."""
        return self._text('failure.txt') if self.owner() == self.fingerprint else None

    def owner(self) -> Optional[str]:
        """Fingerprint of the experiment that the work directory belongs to, if any."""
        return self._text('fingerprint.txt')

    def claim(self) -> None:
        """Takes the work directory; what another experiment left there is moved aside."""
        if self.owner() not in (None, self.fingerprint):
            os.rename(self.work_dir, f'{self.work_dir}.{time.strftime("%Y%m%d_%H%M%S")}')
        atomic_write(self._file('fingerprint.txt'), self.fingerprint)
        Path(self._file('failure.txt')).unlink(missing_ok=True)

    def mark_failed(self, output: str) -> None:
        """Leaves the end of the output of a run that failed.

        Args:
            output (str): To be read by people.
        """
        atomic_write(self._file('failure.txt'), output)

    @property
    def console(self) -> str:
        """File that takes what the training prints."""
        return self._file('console.log')

    def train(self, checkpoints: Mapping[str, str], send: Send) -> None:
        """Trains or continues in this process, evaluates, and writes the result at once and atomically.

        Args:
            checkpoints (Mapping[str, str]): The last checkpoint of each experiment in :attr:`needs`, by its key.
            send (Callable): Called with (iterations done, of how many, short text) while it trains.
        """
        with self._locked():
            if self.result() is None:
                self._train(checkpoints, send)

    def _train(self, checkpoints: Mapping[str, str], send: Send) -> None:
        started = time.monotonic()
        cfg = self.load(checkpoints)
        cfg.work_dir = self.work_dir
        cfg.resume = osp.isfile(self._file('last_checkpoint'))
        if cfg.resume:
            # To a runner that resumes, `load_from` would be the checkpoint to resume from.
            cfg.load_from = None
        runner = build_runner(cfg)
        report = _ReportProgress(send)
        runner.register_hook(report, priority='LOWEST')
        runner.train()
        # A training that was finished before it was resumed has not been evaluated here.
        metrics = report.metrics or runner.val()
        if self.inspect is not None:
            self.inspect(runner)
        result = Result(
            metrics={name: float(value) for name, value in metrics.items()},
            checkpoint=Path(self._file('last_checkpoint')).read_text().strip(),
            seconds_per_iter=_median_seconds(self.work_dir),
            seconds=time.monotonic() - started,
            peak_memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            fingerprint=self.fingerprint)
        atomic_write(self._file('result.json'), json.dumps(asdict(result), indent=2))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Waits until no other process trains in the work directory, such as one whose parent was just killed."""
        with open(self._file('lock'), 'w') as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _text(self, name: str) -> Optional[str]:
        file = Path(self._file(name))
        return file.read_text() if file.is_file() else None

    def _file(self, name: str) -> str:
        return osp.join(self.work_dir, name)


@dataclass(frozen=True)
class Result:
    """What an experiment has shown.

    Attributes:
        metrics (dict[str, float]): Of the last evaluation, under mmengine's names.
        checkpoint (str): The last checkpoint.
        seconds_per_iter (float): Median over the training; depends on what else ran.
        seconds (float): Of the entire training in the process that finished it, evaluation included.
        peak_memory_mib (float): Peak resident memory of that process.
        fingerprint (str): Of the experiment.
    """

    metrics: dict[str, float]
    checkpoint: str
    seconds_per_iter: float
    seconds: float
    peak_memory_mib: float
    fingerprint: str


class _ReportProgress(Hook):
    """Sends how far the training is to the parent process."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.metrics: dict[str, float] = {}

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                         outputs: Optional[dict] = None) -> None:
        self.send((runner.iter + 1, runner.max_iters, 'training'))

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                       outputs: Any = None) -> None:
        """Reports that it is evaluating."""
        self.send((runner.iter, runner.max_iters, 'evaluating'))

    def after_val_epoch(self, runner: Any, metrics: Optional[dict[str, float]] = None) -> None:
        """Keeps the metrics of the last evaluation."""
        self.metrics = dict(metrics or {})


def _settings() -> set[str]:
    return {*inspect.signature(Runner.__init__).parameters, 'runner_type', 'custom_imports'}


def _median_seconds(work_dir: str) -> float:
    """Median time of an iteration, from all logs that the training left."""
    times = [line['time'] for log in read_scalars(work_dir) for line in log if 'loss' in line and 'time' in line]
    return statistics.median(times[1:] or times or [float('nan')])
