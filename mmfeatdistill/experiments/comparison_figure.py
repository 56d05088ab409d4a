"""A picture of a table of comparisons: the scores of each method, and what they cost."""
import io
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmfeatdistill.experiments.report import Row, Spread, Table

_ALONE, _TEACHER, _DISTILLED = '#7f7f7f', '#2a6f97', '#d1495b'


class _Line(NamedTuple):
    name: str
    scores: list[float]
    spread: Spread
    color: str


def comparison_figure(table: Table) -> bytes:
    """Draws the scores of the student alone, of every method and of the teacher; where it was timed, gain against time.

    Dots are seeds; a mark is their mean, its bar one sample standard deviation each way. The bands of the student alone
    and of the teacher are drawn over the entire height. Rows without a score are left out; where only some seeds have
    one, their number is given.

    Args:
        table (Table): What was compared.

    Returns:
        bytes: A PNG.
    """
    lines = _lines(table)
    timed = [row for row in table.rows if row.step is not None and row.gain is not None and row.gain.mean is not None]
    # The heights of rows and of what surrounds them, in inches, whatever their number.
    figure = Figure(figsize=(12 if timed else 7.5, 0.34 * max(len(lines), 5) + 1.1), layout='constrained')
    axes = figure.subplots(1, 2 if timed else 1, squeeze=False).flat
    _draw_scores(axes[0], lines, table.metric, len(table.seeds))
    if timed:
        _draw_costs(axes[1], timed)
    figure.suptitle(table.student, fontsize=11)
    file = io.BytesIO()
    figure.savefig(file, format='png', dpi=130)
    return file.getvalue()


def _lines(table: Table) -> list[_Line]:
    """From the student alone at the bottom to the teacher at the top."""
    by_role: dict[str, list[Row]] = {}
    for row in table.rows:
        by_role.setdefault(row.role, []).append(row)
    lines = [_line(row, _ALONE) for row in by_role.get('alone', [])]
    lines += sorted((_line(row, _DISTILLED) for row in by_role.get('distilled', [])),
                    key=lambda line: line.spread.mean or 0.0)
    lines += [_line(row, _TEACHER) for row in by_role.get('teacher', [])]
    members = [row.score.mean for row in by_role.get('member', []) if row.score.mean is not None]
    if 'teacher' not in by_role:
        # Of a member every seed of the student shows the same training.
        lines.append(_Line('teachers of the ensemble', members, Spread.of(members), _TEACHER))
    return [line for line in lines if line.scores]


def _line(row: Row, color: str) -> _Line:
    name = row.name.replace('teacher ', 'teacher\n', 1) if row.role == 'teacher' else row.name
    return _Line(name, [score for score in row.scores.values() if not isinstance(score, str)], row.score, color)


def _draw_scores(axes: Axes, lines: Sequence[_Line], metric: str, seeds: int) -> None:
    for place, line in enumerate(lines):
        mean, std = line.spread.mean, line.spread.std
        assert mean is not None, 'lines without scores are left out'
        if line.color != _DISTILLED:
            axes.axvline(mean, color=line.color, linewidth=0.8, linestyle='--', zorder=0)
            axes.axvspan(mean - (std or 0), mean + (std or 0), color=line.color, alpha=0.1, linewidth=0, zorder=0)
        axes.plot(line.scores, [place] * len(line.scores), '.', color=line.color, alpha=0.45, markersize=5)
        axes.errorbar(mean, place, xerr=std, color=line.color, marker='D', markersize=5, capsize=3, linewidth=1.4)
        shown = f'{mean:.1f}' + ('' if std is None else f' ± {std:.1f}')
        fewer = f' ({len(line.scores)} of {seeds} seeds)' if len(line.scores) < seeds else ''
        axes.text(1.02, place, shown + fewer, fontsize=8, va='center', transform=axes.get_yaxis_transform())
    axes.set_yticks(range(len(lines)), [_wrapped(line.name) for line in lines], fontsize=8)
    axes.set_ylim(-0.6, len(lines) - 0.4)
    axes.set_xlabel(f'{metric}, points out of 100', fontsize=9)
    _tidy(axes)


def _draw_costs(axes: Axes, rows: Sequence[Row]) -> None:
    points = []
    for row in rows:
        assert row.step is not None and row.gain is not None and row.gain.mean is not None, 'only such are drawn'
        points.append((row.step['seconds']['distilled'], row.gain.mean, row.gain.std, row.name))
    for seconds, gain, std, _ in points:
        axes.errorbar(seconds, gain, yerr=std, color=_DISTILLED, marker='D', markersize=5, capsize=3, linewidth=1.4)
    alone = [row.step['seconds']['student'] for row in rows if row.step is not None]
    student = sum(alone) / len(alone)
    axes.axvline(student, color=_ALONE, linewidth=0.8, linestyle='--', zorder=1)
    axes.text(student, 1.01, 'student alone', fontsize=8, ha='center', transform=axes.get_xaxis_transform())
    axes.axhline(0, color=_ALONE, linewidth=0.8, zorder=0)
    axes.margins(x=0.12, y=0.08)
    axes.set_xlabel('seconds per training iteration, nothing else running', fontsize=9)
    axes.set_ylabel('gain over the student alone', fontsize=9)
    _tidy(axes)
    bottom, top = axes.get_ylim()
    # A column at the right holds the names, in the order of the gains, so that they cannot cover each other.
    points.sort(key=lambda point: point[1])
    heights = _spread_out([(gain - bottom) / (top - bottom) for _, gain, _, _ in points], 0.5 / max(len(points), 5))
    for (seconds, gain, _, name), height in zip(points, heights):
        line = dict(arrowstyle='-', color='0.75', linewidth=0.6, shrinkB=4, relpos=(0, 0.5))
        axes.annotate(name, (seconds, gain), xytext=(1.03, height), textcoords='axes fraction', fontsize=8, va='center',
                      arrowprops=line, zorder=0)


def _spread_out(heights: Sequence[float], distance: float) -> list[float]:
    """Ascending heights between 0 and 1, moved apart to a least distance, as little as going up and then down does.

    Examples:
        >>> _spread_out([0.5, 0.5, 1.0], 0.25)
        [0.5, 0.75, 1.0]
        >>> _spread_out([0.9, 1.0], 0.25)
        [0.75, 1.0]
    """
    up: list[float] = []
    for height in heights:
        up.append(height if not up else max(height, up[-1] + distance))
    down: list[float] = []
    for height in reversed(up):
        down.append(min(height, 1.0) if not down else min(height, down[-1] - distance))
    return down[::-1]


def _tidy(axes: Axes) -> None:
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(axis='x', color='0.92', linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)


def _wrapped(name: str) -> str:
    return '\n'.join(part for line in name.split('\n') for part in textwrap.wrap(line, 34))
