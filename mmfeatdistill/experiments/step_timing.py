"""The cost of the training steps of experiments, measured once each with nothing else running."""
import json
import os.path as osp
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Optional

from mmengine.device import is_cuda_available

from mmfeatdistill.atomic_files import atomic_write
from mmfeatdistill.experiments.child_process import Child, Send, sigterm_raises
from mmfeatdistill.experiments.experiment import Experiment
from mmfeatdistill.step_costs.measure import measure_step


def time_steps(experiments: Iterable[Experiment], rounds: int, threads: int = 1,
               on_start: Optional[Callable[[Experiment], None]] = None) -> dict[Experiment, str]:
    """Measures the steps of distilled trainings, one after the other, and keeps the figures next to their results.

    See :func:`mmfeatdistill.step_costs.measure.measure_step`. What was measured before is not measured again.

    Args:
        experiments (Iterable[Experiment]): Distilled trainings; those whose teachers are not trained are left out.
        rounds (int): Rounds that count.
        threads (int): Torch threads. Defaults to 1.
        on_start (Callable, optional): Called with each experiment that is measured.

    Returns:
        dict[Experiment, str]: What went wrong, by experiment.
    """
    failures = {}
    for experiment in experiments:
        known = step_costs(experiment)
        needed = {key: need.result() for key, need in experiment.needs.items()}
        checkpoints = {key: result.checkpoint for key, result in needed.items() if result is not None}
        if len(checkpoints) < len(needed) or (known and (known['rounds'], known['threads']) == (rounds, threads)):
            continue
        if on_start is not None:
            on_start(experiment)
        child = Child(partial(_measure, experiment, checkpoints, rounds, threads), f'{_file(experiment)}.log', threads)
        with sigterm_raises():
            try:
                child.receive()
                code = child.join()
            finally:
                child.kill()
        if code != 0:
            failures[experiment] = f'timing failed with exit code {code}; the end of {child.console}:\n' \
                                   f'{child.last_lines()}'
    return failures


def step_costs(experiment: Experiment) -> Optional[dict[str, Any]]:
    """The figures that :func:`time_steps` has left.

    Args:
        experiment (Experiment): A distilled training.

    Returns:
        dict: With the fields of ``StepCosts`` as plain data, and ``threads``;
        None if it was not measured.
    """
    file = Path(_file(experiment))
    costs = json.loads(file.read_text()) if file.is_file() else None
    return costs if costs and costs['fingerprint'] == experiment.fingerprint else None


def _measure(experiment: Experiment, checkpoints: dict[str, str], rounds: int, threads: int, send: Send) -> None:
    costs = measure_step(experiment.load(checkpoints), rounds, within=0.0,
                         device='cuda' if is_cuda_available() else 'cpu')
    atomic_write(_file(experiment), json.dumps(
        asdict(costs) | dict(threads=threads, fingerprint=experiment.fingerprint), indent=2))


def _file(experiment: Experiment) -> str:
    return osp.join(experiment.work_dir, 'step.json')
