"""What comparisons have shown, over the seeds."""
import os.path as osp
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional, Union

from mmfeatdistill.experiments.comparison import Comparison, method_name
from mmfeatdistill.experiments.experiment import Experiment
from mmfeatdistill.experiments.step_timing import step_costs


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) of some values; None where there are too few."""

    mean: Optional[float]
    std: Optional[float]

    @classmethod
    def of(cls, values: Iterable[float]) -> 'Spread':
        """Of the given values."""
        values = list(values)
        return cls(statistics.mean(values) if values else None, statistics.stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class Row:
    """One training recipe over the seeds.

    Attributes:
        name (str): For people.
        role (str): ``'alone'``, ``'teacher'``, ``'member'`` of an ensemble of teachers, or ``'distilled'``.
        config (str): The distillation config; of a student alone, one of those that share it; of a teacher, its name.
        scores (dict[int, float | str]): By seed of the comparison, out of 100; or why there is none.
        score (Spread): Of the scores.
        seconds_per_iter (float, optional): Mean over the seeds, with others running at the same time.
        peak_memory_mib (float, optional): Mean over the seeds.
        gain (Spread, optional): Of the differences to the student alone, seed by seed.
        gap_closed (float, optional): The gain over the distance from the student alone to the teachers.
        verdict (str, optional): See :func:`verdict`.
        step (dict, optional): See :func:`mmfeatdistill.experiments.step_timing.step_costs`.
    """

    name: str
    role: str
    config: str
    scores: dict[int, Union[float, str]]
    score: Spread
    seconds_per_iter: Optional[float]
    peak_memory_mib: Optional[float]
    gain: Optional[Spread] = None
    gap_closed: Optional[float] = None
    verdict: Optional[str] = None
    step: Optional[dict[str, Any]] = None


@dataclass(frozen=True)
class Table:
    """The rows of one student in one task: alone, its teachers, and every distillation.

    Attributes:
        student (str): Name of the student.
        metric (str): As mmengine logs it.
        seeds (tuple[int, ...]): Of the comparisons.
        rows (tuple[Row, ...]): In that order.
    """

    student: str
    metric: str
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]


def scale_of(metric: str) -> float:
    """What brings a metric to points out of 100: COCO's are fractions, the others are in per cent already.

    Args:
        metric (str): As mmengine logs it.

    Returns:
        float: 100 or 1.

    Examples:
        >>> scale_of('coco/bbox_mAP'), scale_of('mIoU')
        (100.0, 1.0)
    """
    return 100.0 if metric.startswith('coco/') else 1.0


def verdict(alone: Sequence[float], gains: Sequence[float]) -> str:
    """Whether a mean gain is larger than what changes by chance.

    Args:
        alone (Sequence[float]): Scores of the student alone.
        gains (Sequence[float]): Differences to it, seed by seed.

    Returns:
        str: ``'helps'`` or ``'hurts'`` where the mean gain exceeds one standard deviation both of the student alone
        and of the gains, else ``'no clear difference'``; ``'too few seeds'`` below two.

    Examples:
        >>> verdict([60.0, 62.0], [3.0, 4.0])
        'helps'
        >>> verdict([60.0, 66.0], [3.0, 4.0])
        'no clear difference'
    """
    if len(gains) < 2:
        return 'too few seeds'
    mean, threshold = statistics.mean(gains), max(statistics.stdev(alone), statistics.stdev(gains))
    return 'no clear difference' if abs(mean) <= threshold else 'helps' if mean > 0 else 'hurts'


def tables(comparisons: Iterable[Comparison]) -> list[Table]:
    """Reads what is finished, and arranges it.

    Args:
        comparisons (Iterable[Comparison]): Of several configs and seeds.

    Returns:
        list[Table]: One for each metric and student.
    """
    groups: dict[tuple[str, str], dict[str, dict[int, Comparison]]] = {}
    for comparison in comparisons:
        configs = groups.setdefault((comparison.metric, comparison.student_name), {})
        configs.setdefault(comparison.config, {})[comparison.seed] = comparison
    return [_table(student, metric, configs) for (metric, student), configs in groups.items()]


Trained = tuple[tuple[int, Experiment], ...]
"""One recipe: an experiment for each seed of a comparison."""


def _table(student: str, metric: str, configs: Mapping[str, Mapping[int, Comparison]]) -> Table:
    alone: dict[Trained, list[str]] = {}
    teachers: dict[Trained, tuple[str, str]] = {}
    for config, by_seed in configs.items():
        alone.setdefault(tuple((seed, c.student) for seed, c in by_seed.items()), []).append(config)
        count = len(next(iter(by_seed.values())).teachers)
        for index in range(count):
            trained = tuple((seed, c.teachers[index]) for seed, c in by_seed.items())
            name = osp.basename(trained[0][1].work_dir)
            teachers.setdefault(trained, (f'teacher {name}', 'teacher') if count == 1 else
                                (f'teacher {index + 1} {name}', 'member'))
    rows = [_row('student alone' if len(alone) == 1 else f'student alone as in {", ".join(map(method_name, users))}',
                 'alone', users[0], dict(trained), metric) for trained, users in alone.items()]
    rows += [_row(name, role, osp.basename(trained[0][1].work_dir), dict(trained), metric)
             for trained, (name, role) in teachers.items()]
    rows += [_distilled_row(config, by_seed, metric) for config, by_seed in configs.items()]
    return Table(student, metric, tuple(dict.fromkeys(seed for by_seed in configs.values() for seed in by_seed)),
                 tuple(rows))


def _row(name: str, role: str, config: str, by_seed: Mapping[int, Experiment], metric: str) -> Row:
    results = [result for result in (experiment.result() for experiment in by_seed.values()) if result is not None]
    scores = {seed: _score(experiment, metric) for seed, experiment in by_seed.items()}
    return Row(name, role, config, scores, Spread.of(_numbers(scores).values()),
               Spread.of(result.seconds_per_iter for result in results).mean,
               Spread.of(result.peak_memory_mib for result in results).mean)


def _distilled_row(config: str, by_seed: Mapping[int, Comparison], metric: str) -> Row:
    row = _row(method_name(config), 'distilled', config, {seed: c.distilled for seed, c in by_seed.items()}, metric)
    scores = _numbers(row.scores)
    alone = _numbers({seed: _score(c.student, metric) for seed, c in by_seed.items()})
    gains = {seed: scores[seed] - alone[seed] for seed in scores if seed in alone}
    costs = [step_costs(c.distilled) for c in by_seed.values()]
    return replace(row, gain=Spread.of(gains.values()), gap_closed=_gap_closed(gains, alone, by_seed, metric),
                   verdict=verdict(list(alone.values()), list(gains.values())) if gains else None,
                   step=next(filter(None, costs), None))


def _gap_closed(gains: Mapping[int, float], alone: Mapping[int, float], by_seed: Mapping[int, Comparison],
                metric: str) -> Optional[float]:
    """Mean gain over the mean distance to the teachers, of the seeds that have all; None without a distance."""
    gaps = {}
    for seed in gains:
        teachers = _numbers({index: _score(teacher, metric) for index, teacher in enumerate(by_seed[seed].teachers)})
        if teachers and len(teachers) == len(by_seed[seed].teachers):
            gaps[seed] = statistics.mean(teachers.values()) - alone[seed]
    gap = sum(gaps.values())
    return sum(gains[seed] for seed in gaps) / gap if gap > 0 else None


def _score(experiment: Experiment, metric: str) -> Union[float, str]:
    """Out of 100, or why there is none."""
    result = experiment.result()
    if result is None:
        return ('failed' if experiment.failure() is not None else
                'not finished' if experiment.owner() == experiment.fingerprint else 'not run')
    return scale_of(metric) * result.metrics[metric] if metric in result.metrics else 'no such metric'


def _numbers(scores: Mapping[int, Union[float, str]]) -> dict[int, float]:
    return {seed: score for seed, score in scores.items() if not isinstance(score, str)}
