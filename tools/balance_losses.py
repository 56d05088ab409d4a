"""Measures the losses of a distillation config in a short training, and suggests weights that balance them.

Nothing is written to the work directory of the config.
"""
import argparse
import math
import sys
from collections.abc import Sequence
from typing import Any, Optional

from mmengine.config import Config
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmfeatdistill.checks.loss_balance import LossMeasurement, Suggestion, measure_losses, suggest_weights
from mmfeatdistill.engine.command_line import add_cfg_options, at_least, load_distillation


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Parses the command line, measures, and prints what would balance the losses.

    Args:
        arguments (Sequence[str], optional): Defaults to None: those of the process.

    Returns:
        int: Exit code: 1 if there is an objective without a suggestion.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a distillation config')
    parser.add_argument('--iterations', type=at_least(2), default=50,
                        help='of training; the second half is measured (default: %(default)s)')
    parser.add_argument('--ratio', type=float, default=1.0,
                        help="the loss of each objective over the student's own loss (default: %(default)s)")
    add_cfg_options(parser, 'override settings of the config')
    args = parser.parse_args(arguments)
    if not 0 < args.ratio < math.inf:
        parser.error('--ratio: expected a positive number')
    cfg = load_distillation(args.config, args.cfg_options)
    measured = measure_losses(cfg, args.iterations)
    suggestions = suggest_weights(cfg, measured, args.ratio)
    show(cfg, measured, suggestions, args)
    return 1 if any(suggestion.problem for suggestion in suggestions) else 0


def show(cfg: Config, measured: LossMeasurement, suggestions: Sequence[Suggestion], args: argparse.Namespace) -> None:
    """Prints what was measured and what is suggested.

    Args:
        cfg (Config): The config.
        measured (LossMeasurement): What was measured.
        suggestions (Sequence[Suggestion]): What follows.
        args (argparse.Namespace): The options.
    """
    console = Console(width=None if Console().is_terminal else 160)
    table = Table('objective', 'loss', 'over the task loss', 'gradient over that of the task loss', 'weight', 'now',
                  f'for a ratio of {args.ratio:g}')
    for suggestion in suggestions:
        new = [f'{weight.value:g}' for weight in suggestion.suggested] or ['-'] * max(len(suggestion.now), 1)
        table.add_row(suggestion.objective, _number(suggestion.loss), _number(suggestion.ratio),
                      _number(suggestion.gradient_ratio), '\n'.join(weight.key for weight in suggestion.now),
                      '\n'.join(f'{weight.value:g}' for weight in suggestion.now), '\n'.join(new))
    console.print(table)
    console.print(f"The student's own loss is {measured.task:.4g}: means over the last "
                  f'{args.iterations - args.iterations // 2} of {args.iterations} iterations, with a batch of '
                  f'{measured.batch_size}; without the factors of schedules.', soft_wrap=True)
    for suggestion in suggestions:
        if suggestion.problem:
            console.print(escape(f'{suggestion.objective}: no weight can be suggested, as {suggestion.problem}.'),
                          soft_wrap=True)
    options = [f'{weight.key}={weight.value:g}' for suggestion in suggestions for weight in suggestion.suggested]
    if options:
        console.print(f'--cfg-options {" ".join(options)}', soft_wrap=True)
        console.print('A ratio is a place to start from: which one trains best differs from method to method.')
    console.print(_batch_sentence(cfg.get('auto_scale_lr') or {}, measured.batch_size), soft_wrap=True)


def _number(value: Any) -> str:
    return '-' if value is None else f'{value:.3g}'


def _batch_sentence(auto_scale_lr: dict, batch_size: int) -> str:
    """What another batch size asks for."""
    base = auto_scale_lr.get('base_batch_size')
    meant = f'the learning rate is meant for a batch of {base} over all processes' if base else (
        'the config does not say for which batch its learning rate is meant (auto_scale_lr.base_batch_size)')
    scaled = f'; on one process with {batch_size}, tools/train.py --auto-scale-lr multiplies it by ' \
             f'{batch_size / base:.3g}' if base else ''
    return f'Losses are means over a batch, so that weights need no scaling with it; {meant}{scaled}.'


if __name__ == '__main__':
    sys.exit(main())
