"""A picture of what distilled training steps cost."""
import io
import textwrap
from collections.abc import Mapping

from matplotlib.figure import Figure

_PARTS = dict(student=('student alone', '#7f7f7f'), teacher=('teacher to its last tap', '#2a6f97'),
              objectives=('connectors and losses', '#e9a23b'))


def step_figure(steps: Mapping[str, Mapping[str, float]]) -> bytes:
    """Draws the parts that a distilled step has to compute as bars, and the step itself as a mark on them.

    Times are relative to the step of the student alone.

    Args:
        steps (Mapping[str, Mapping[str, float]]): Seconds of ``student``, ``teacher``, ``objectives`` and
            ``distilled``, by what was measured.

    Returns:
        bytes: A PNG.

    Examples:
        >>> step_figure(dict(pair=dict(student=2.0, teacher=1.0, objectives=0.5, distilled=3.6)))[1:4]
        b'PNG'
    """
    figure = Figure(figsize=(10, 0.5 * len(steps) + 1.5), layout='constrained')
    axes = figure.subplots()
    steps = {textwrap.fill(name, 56): seconds for name, seconds in steps.items()}
    names = list(steps)
    ends = [0.0] * len(names)
    for part, (label, color) in _PARTS.items():
        widths = [steps[name][part] / steps[name]['student'] for name in names]
        axes.barh(names, widths, left=ends, color=color, label=label, height=0.6)
        ends = [end + width for end, width in zip(ends, widths)]
    axes.scatter([steps[name]['distilled'] / steps[name]['student'] for name in names], names, marker='|', s=300,
                 linewidths=2.5, color='#d1495b', label='distilled step', zorder=3)
    axes.invert_yaxis()
    axes.tick_params(axis='y', labelsize=8)
    axes.set(xlabel='time, steps of the student alone')
    axes.spines[['top', 'right']].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), ncols=4, fontsize=8, loc='outside upper center')
    file = io.BytesIO()
    figure.savefig(file, format='png', dpi=130)
    return file.getvalue()
