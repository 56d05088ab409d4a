"""The text of a config: about ten lines that a user reads, keeps and changes."""
from collections.abc import Mapping
from typing import Any, Optional

_WIDTH = 114
"""Of a line, without the brackets and commas that may follow."""

_CLOSING = {'(': ')', '[': ']'}


def distillation_text(about: str, student: str, teacher: str, checkpoint: Optional[str],
                      objectives: Mapping[str, Any]) -> str:
    """The text of a distillation config.

    Args:
        about (str): What it is, in lines for people; becomes a comment.
        student (str): Python code of the base that holds the student, its data and its schedule.
        teacher (str): Python code of the teacher's config.
        checkpoint (str, optional): The teacher's.
        objectives (dict): Of the model.

    Returns:
        str: Complete; every line ends.

    Examples:
        >>> print(distillation_text('An example.', "'mmdet::a.py'", "'mmdet::b.py'", 'zoo',
        ...                         dict(fpn=dict(type='FT', taps=['neck']))), end='')
        # An example.
        _base_ = 'mmdet::a.py'
        model = dict(
            _delete_=True,
            type='mmfeatdistill.FeatureDistiller',
            student={{_base_.model}},
            teacher=dict(config='mmdet::b.py', checkpoint='zoo'),
            objectives=dict(
                fpn=dict(type='FT', taps=['neck'])))
    """
    comment = ''.join(f'# {line}\n' for line in about.splitlines())
    named = [f'{name}={code(objective, 9 + len(name))}' for name, objective in objectives.items()]
    return (f'{comment}_base_ = {student}\n'
            'model = dict(\n'
            '    _delete_=True,\n'
            "    type='mmfeatdistill.FeatureDistiller',\n"
            '    student={{_base_.model}},\n'
            f'    teacher={_filled("dict(", [f"config={teacher}", f"checkpoint={checkpoint!r}"], 12)},\n'
            '    objectives=dict(\n'
            '        ' + ',\n        '.join(named) + '))\n')


def code(value: Any, column: int = 0) -> str:
    """The Python code of a value as configs are written: dicts by ``dict()``, broken into lines where they are long.

    Args:
        value: Of dicts with names for keys, lists, tuples and plain values.
        column (int): Where the text begins. Defaults to 0.

    Returns:
        str: The code.

    Examples:
        >>> code(dict(type='FT', taps=['neck'], loss_weight=5e-7))
        "dict(type='FT', taps=['neck'], loss_weight=5e-07)"
    """
    if isinstance(value, Mapping):
        parts = [f'{name}={code(item, column + 6 + len(name))}' for name, item in value.items()]
        return _filled('dict(', parts, column)
    if isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
        return _filled('[', [code(item, column + 1) for item in value], column)
    return repr(value)


def _filled(opening: str, parts: list[str], column: int) -> str:
    """Parts in as few lines as hold them, each line below the first part."""
    indent = column + len(opening)
    lines: list[str] = []
    for number, part in enumerate(parts):
        text = part + (',' if number < len(parts) - 1 else _CLOSING[opening[-1]])
        joined = f'{lines[-1]} {text}' if lines else text
        if lines and ('\n' in joined or indent + len(joined) > _WIDTH):
            lines.append(text)
        else:
            lines[-1:] = [joined]
    return opening + f'\n{" " * indent}'.join(lines)
