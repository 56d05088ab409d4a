"""The page of what training steps cost."""
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmfeatdistill.release.markdown import markdown_table

_EXPLANATION = """\
All parts are timed in turn, in one process, with identical weights, on one batch: the student's step alone, the
teachers to their last taps, connectors and losses by themselves, and the distilled step.

- **ratio**: the distilled step over the sum of the three parts, which it has to compute anyway.
  In brackets, where it is with a probability of 95 %; with fewer than six rounds, the least and the greatest.
- **plain ratio**: the distilled step over the student's step and the teachers' pass without acceleration: connectors
  and losses count as overhead here. **by hand**: student, plain teacher, connectors and losses over the same, which is
  the least that hooks and a teacher under `no_grad` of one's own cost. **difference**: by how much the teacher's
  features differ from the plain teacher's, relative to the largest.
- **memory**: everything that is held at the peak of a step: weights, state of the optimizer, activations. **over
  floor**: over what is held anyway, and the greater of what the teachers take by themselves, and of the student alone
  with the tapped features and what connectors and losses take by themselves. **over bare**: over student, teachers'
  weights and taps, without anything for connectors and losses.
- **build**: building the distiller over building its student and its teachers by themselves.

Times are medians of the rounds, on a CPU of the processor's time; ratios are medians of what they are in each round, as
a machine's speed may change from one to the next. Tables may be of different days. Pairs with a size of images are
networks of real size on random images with random weights; the others are the digit scenes."""
_TABLES = (
    ('Each pair', 'plain', ('student', 'plain teacher', 'teacher', 'objectives', 'distilled', 'ratio', 'plain ratio',
                            'by hand', 'difference', 'memory alone', 'memory', 'over floor', 'over bare', 'build',
                            'rounds')),
    ('Several teachers', 'several', ('teachers', 'student', 'teacher', 'objectives', 'distilled', 'ratio',
                                     'plain ratio', 'memory', 'over floor', 'over bare', 'rounds')),
    ('Other options', 'accelerated', ('options', 'plain teacher', 'teacher', 'distilled', 'ratio', 'plain ratio',
                                         'difference', 'memory', 'rounds')),
)
_UNITS = dict.fromkeys(('student', 'teacher', 'objectives', 'distilled', 'plain teacher'), 'ms') | dict.fromkeys(
    ('memory', 'memory alone'), 'MiB')
_ACCELERATION = 'model.teacher.acceleration.'


def step_report(found: Sequence[Mapping[str, Any]], picture: str) -> str:
    """The page.

    Args:
        found (Sequence[dict]): A measurement each: the fields of
            :class:`mmfeatdistill.step_costs.measure.StepCosts`, ratios as dicts too, those of
            :class:`mmfeatdistill.step_costs.build_time.BuildCosts` as ``build``, and its circumstances: ``config``,
            ``images``, ``teachers``, ``options``, ``device``, ``threads``, ``rounds``, ``date``, ``versions``.
        picture (str): File of the picture, seen from the page.

    Returns:
        str: In Markdown.
    """
    parts = ['# What a step costs', _EXPLANATION, f'![parts of a distilled step]({picture})']
    for title, kind, columns in _TABLES:
        rows = [entry for entry in found if _kind(entry) == kind]
        if rows:
            parts += [f'## {title}', _circumstances(rows),
                      markdown_table(['config, images', *map(_titled, columns)],
                                     (_cells(entry, columns) for entry in rows))]
    parts += ['## Where the time goes', 'The operators with the largest share of a distilled step.',
              markdown_table(('config, images', 'operators'), (
                  [_name(entry), ', '.join(f'`{name}` {share:.0%}' for name, share in entry['operators'].items())]
                  for entry in found if _kind(entry) == 'plain')),
              '## Again', '```bash\nbash tools/step_costs.sh\n```']
    return '\n\n'.join(parts) + '\n'


def _circumstances(rows: Sequence[Mapping[str, Any]]) -> str:
    return '; '.join(dict.fromkeys(
        f'{row["device"]} with {row["threads"]} thread(s), {row["date"]}, {row["versions"]}' for row in rows)) + '.'


def _kind(entry: Mapping[str, Any]) -> str:
    if entry['teachers']:
        return 'several'
    return 'accelerated' if any(key.startswith(_ACCELERATION) for key in entry['options']) else 'plain'


def _name(entry: Mapping[str, Any]) -> str:
    images = f' {"x".join(map(str, entry["images"]))}' if entry['images'] else ''
    teacher = entry['options'].get('model.teacher.config')
    return f'`{entry["config"]}`{images}' + (f', teacher `{teacher}`' if teacher else '')


def _cells(entry: Mapping[str, Any], columns: Iterable[str]) -> list[str]:
    seconds, memory = entry['seconds'], entry['memory_mib']
    values = {
        **{part.replace('_', ' '): f'{1000 * value:.1f}' for part, value in seconds.items()},
        'ratio': _known(entry['ratio']), 'plain ratio': _known(entry['plain_ratio']),
        'by hand': _known(entry['by_hand']) if 'by_hand' in entry else '-',  # not in older files
        'rounds': str(entry['rounds']),
        'memory': f'{memory["distilled"]:.0f}', 'memory alone': f'{memory["student"]:.0f}',
        'over floor': f'{memory["distilled"] / memory["floor"]:.3f}',
        'over bare': f'{memory["distilled"] / memory["bare"]:.3f}',
        'build': f'{entry["build"]["ratio"]:.3f}' if entry['build'] else '-', 'teachers': str(entry['teachers']),
        'difference': f'{entry["difference"]:.0e}',
        'options': ', '.join(f'`{key.removeprefix(_ACCELERATION)}={value}`' for key, value in entry['options'].items()
                             if key.startswith(_ACCELERATION))}
    return [_name(entry), *(values[column] for column in columns)]


def _known(ratio: Mapping[str, float]) -> str:
    return f'{ratio["value"]:.3f} ({ratio["low"]:.3f} to {ratio["high"]:.3f})'


def _titled(column: str) -> str:
    return f'{column}, {_UNITS[column]}' if column in _UNITS else column
