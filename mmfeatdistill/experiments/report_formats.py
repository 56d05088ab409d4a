"""Tables of comparisons as Markdown, CSV and JSON."""
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import Any, Optional, Union

from mmfeatdistill.experiments.report import Row, Spread, Table
from mmfeatdistill.release.markdown import markdown_table

_COLUMNS = ('gain', 'gap closed', 'verdict', 'training, s/iter', 'memory, MiB', 'student step alone, ms',
            'distilled step, ms', 'step ratio', 'step memory added, MiB')
_EXPLANATION = """\
How to read the tables:

- Scores are points out of 100, of the last evaluation, one column for each seed; then mean ± sample standard deviation.
- A seed gives the same scores again on the same machine with the same versions. Elsewhere arithmetic is rounded
  otherwise, which moves a score about as much as another seed does.
- **gain**: difference to the student alone on the same recipe with the same seed; mean ± standard deviation of these.
- **gap closed**: the gain over the distance from the student alone to its teacher (of several, to their mean).
- **verdict**: "helps" or "hurts" where the mean gain exceeds one standard deviation of the student alone and one of the
  gains.
- **teacher 1**, **teacher 2**, ...: those of an ensemble, which is the same whatever the seed of the student.
- **training**: median seconds of an iteration, with other trainings at the same time. **memory**: peak of the entire
process.
- **steps** are measured afterwards with nothing else running: the student's step alone, the distilled step, the
  distilled step over the sum of what it has to compute (student, teacher to its last tap, connectors and losses), and
  what the step adds to the memory held before it.
- "not run", "not finished" and "failed" are trainings without a result; the figures in their rows are of the other
  seeds."""


def markdown(tables: Sequence[Table], title: str, circumstances: Sequence[str], pictures: Sequence[str] = ()) -> str:
    """The report.

    Args:
        tables (Sequence[Table]): What was compared.
        title (str): Of the report.
        circumstances (Sequence[str]): Under which it was measured, point by point.
        pictures (Sequence[str]): A picture for each table, seen from the page. Defaults to none.

    Returns:
        str: A Markdown page.
    """
    parts = [f'# {title}', '\n'.join(f'- {line}' for line in circumstances), _EXPLANATION]
    for table, picture in zip_longest(tables, pictures):
        parts += [f'## {table.student}: {table.metric}', markdown_table(
            ['', *(f'seed {seed}' for seed in table.seeds), 'mean', *_COLUMNS],
            [_cells(row, table.seeds) for row in table.rows])]
        if picture:
            parts += [f'![{table.student}: {table.metric} of each method]({picture})']
    return '\n\n'.join(parts) + '\n'


def _cells(row: Row, seeds: Sequence[int]) -> list[str]:
    step = row.step or {}
    seconds, memory = step.get('seconds', {}), step.get('peak_mib', {})
    return [row.name, *(_score(row.scores.get(seed, '-')) for seed in seeds), _spread(row.score),
            _spread(row.gain, '+'), _number(row.gap_closed, '.0%').replace('%', ' %'), row.verdict or '-',
            _number(row.seconds_per_iter, '.3f'), _number(row.peak_memory_mib, '.0f'),
            _number(seconds.get('student'), '.1f', 1000), _number(seconds.get('distilled'), '.1f', 1000),
            _number(_step_ratio(row), '.3f'), _number(memory.get('distilled'), '.0f')]


def csv_text(tables: Sequence[Table]) -> str:
    """All rows of all tables, one line each, in full precision.

    Args:
        tables (Sequence[Table]): What was compared.

    Returns:
        str: With a header; empty where there is no figure.
    """
    lines = [_flat(table, row) for table in tables for row in table.rows]
    fields = list(dict.fromkeys(name for line in lines for name in line))
    file = io.StringIO()
    writer = csv.DictWriter(file, fields, restval='', lineterminator='\n')
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def _flat(table: Table, row: Row) -> dict[str, Any]:
    gain = row.gain or Spread(None, None)
    seconds = (row.step or {}).get('seconds', {})
    return dict(
        student=table.student, metric=table.metric, row=row.name, config=row.config,
        **{f'seed {seed}': row.scores.get(seed, '') for seed in table.seeds}, mean=row.score.mean, std=row.score.std,
        gain=gain.mean, gain_std=gain.std, gap_closed=row.gap_closed, verdict=row.verdict,
        seconds_per_iter=row.seconds_per_iter, peak_memory_mib=row.peak_memory_mib,
        **{f'{part}_step_seconds': value for part, value in seconds.items()}, step_ratio=_step_ratio(row))


def json_text(tables: Sequence[Table], circumstances: dict[str, Any]) -> str:
    """Everything that is known.

    Args:
        tables (Sequence[Table]): What was compared.
        circumstances (dict): Under which it was measured.

    Returns:
        str: An object with ``circumstances`` and ``tables``.
    """
    return json.dumps(dict(circumstances=circumstances, tables=[asdict(table) for table in tables]), indent=2)


def _step_ratio(row: Row) -> Optional[float]:
    return row.step['ratio']['value'] if row.step else None


def _score(score: Union[float, str]) -> str:
    return score if isinstance(score, str) else f'{score:.2f}'


def _spread(spread: Optional[Spread], sign: str = '') -> str:
    if spread is None or spread.mean is None:
        return '-'
    return f'{spread.mean:{sign}.2f}' + ('' if spread.std is None else f' ± {spread.std:.2f}')


def _number(value: Optional[float], form: str, factor: float = 1.0) -> str:
    return '-' if value is None else format(factor * value, form)
