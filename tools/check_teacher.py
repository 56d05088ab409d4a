"""Checks the teacher of a distillation config before it is trained: weights, input, taps, classes, what it knows.

The exit code is 0 only if all is fine.
"""
import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Optional

from mmengine.logging import MMLogger
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmfeatdistill.checks.preflight import Preflight, preflight
from mmfeatdistill.engine.command_line import add_cfg_options, at_least, load_distillation
from mmfeatdistill.errors import ConfigError

MARKS = dict(ok='[green]ok[/]', note='[yellow]note[/]', chance='[red]fails[/]', error='[red]fails[/]')


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Parses the command line, checks, and prints what was found.

    Args:
        arguments (Sequence[str], optional): Defaults to None: those of the process.

    Returns:
        int: Exit code: 1 if anything is wrong.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a distillation config')
    parser.add_argument('--images', type=at_least(10), default=200,
                        help='validation images to evaluate on; more show smaller differences (default: %(default)s)')
    add_cfg_options(parser, 'override settings, such as model.teacher.checkpoint=teacher.pth')
    args = parser.parse_args(arguments)
    MMLogger.get_instance('check_teacher', log_level=logging.ERROR)
    console = Console(width=None if Console().is_terminal else 200)
    cfg = load_distillation(args.config, args.cfg_options)
    try:
        shown = preflight(cfg, args.images)
    except ConfigError as error:
        console.print(f'[red]fails[/] {escape(str(error))}', soft_wrap=True)
        return 1
    show(shown, console)
    return 0 if shown.passed else 1


def show(shown: Preflight, console: Console) -> None:
    """Prints the tables and the verdict.

    Args:
        shown (Preflight): What was found.
        console (Console): Where to.
    """
    inputs = Table('network', 'mean', 'std', 'channels', 'input converted', 'classes', title='input and output')
    for row in shown.inputs:
        inputs.add_row(*(escape('-' if value is None else str(value)) for value in row))
    taps = Table('objective', "student's tap", "teacher's tap", 'connected', 'compared as',
                 title='what is matched, on one small image')
    for tap in shown.taps:
        taps.add_row(*map(escape, tap))
    weights = Table('teacher', 'loaded', 'missing', 'unexpected', 'other shape', 'checkpoint', title='weights')
    for check in shown.teachers:
        report = check.load_report
        counts = ('-',) * 4 if report is None else (
            str(report.matched), *(str(len(names)) for names in (report.missing, report.unexpected, report.mismatched)))
        weights.add_row(escape(check.key), *counts, '-' if report is None else escape(report.source))
    scores = Table('teacher', 'metric', 'images', 'as declared', 'swapped channels', 'random weights', 'chance',
                   title='what it knows: means over ten groups of images')
    for check in shown.teachers:
        if check.scores is not None:
            figures = [*map(check.scores.mean, ('declared', 'swapped', 'random')), check.chance]
            scores.add_row(escape(check.key), check.scores.metric, str(check.scores.images),
                           *(f'{figure:.4g}' for figure in figures))
    twins = Table('tap', 'difference', title='the student as its own teacher: differences are 0 where a tap compares '
                                             'what it says')
    for twin in shown.twins:
        twins.add_row(escape(twin.tap), f'{twin.difference:.2g}' if not twin.refused else escape(twin.refused))
    for table in (inputs, taps, twins, weights, scores):
        if table.rows:
            console.print(table)
    for check in shown.teachers:
        for finding in check.findings:
            console.print(f'{MARKS[finding.level]} {escape(f"{check.key}: {finding.text}")}', soft_wrap=True)
    for twin in shown.twins:
        if twin.is_error:
            console.print(f'{MARKS["error"]} {escape(twin.tap)}: the student differs from itself there in training; '
                          'tap another place.', soft_wrap=True)
    console.print('The teacher is fine.' if shown.passed else 'The teacher is not fit to be learned from; see above.')


if __name__ == '__main__':
    sys.exit(main())
