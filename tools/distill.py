"""Distills a student from a teacher, given by their names: finds out the rest, writes a config, and trains it.

Every step says what it decided and why; each decision can be given by an option instead. The config that it writes is
an ordinary one of about ten lines, to be kept and changed, and trained again by tools/train.py.
"""
import argparse
import logging
import math
import os
import os.path as osp
import time
from collections.abc import Sequence
from typing import Any, Optional

from mmengine.config import Config
from mmengine.logging import MMLogger
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch.distributed.elastic.multiprocessing.errors import record

from mmfeatdistill.atomic_files import atomic_write
from mmfeatdistill.engine.command_line import add_run_options, add_training_options, at_least, configure_training
from mmfeatdistill.engine.disk_faults import disk_faults_explained
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.planning.methods import Fit
from mmfeatdistill.planning.own_data import read_own_data
from mmfeatdistill.planning.pair import load_configs
from mmfeatdistill.planning.plan import all_fits, places, plan
from mmfeatdistill.planning.wishes import Wishes
from mmfeatdistill.zoo.configs import build_runner

_RANKS = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')


@record  # under torchrun, the report of a job that fails ends with the error of the process that failed first
def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Parses the command line, plans, writes the config and trains.

    Args:
        arguments (Sequence[str], optional): Defaults to None: those of the process.
    """
    args = parse(arguments)
    try:
        wishes = read_wishes(args)
        configs = load_configs(wishes)
        if not args.list_methods and not args.dry_run and args.launcher == 'none':
            check_training(args)
        if args.list_methods:
            show_methods(all_fits(wishes, configs, say))
            return
        out, _ = places(wishes, *configs)
        if os.environ.get(_RANKS.get(args.launcher, ''), '0') != '0':
            wait_for(out)
        elif not (args.resume and osp.isfile(out)):
            write(wishes, configs)
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    if args.dry_run:
        print(f'Nothing was trained, as this is a dry run. python tools/train.py {out} trains it.')
        return
    args.config, args.check_teacher = out, None
    cfg = configure_training(args)
    # Not in the config: a list there would take the place of the student's own hooks.
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type='mmfeatdistill.AlignmentHook')]
    with disk_faults_explained(cfg.work_dir):
        build_runner(cfg).train()


def parse(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('student', metavar='STUDENT',
                        help="a config file, a stock config such as 'mmdet::...', or the name of a zoo model")
    parser.add_argument('teacher', metavar='TEACHER', help='likewise')
    plans = parser.add_argument_group('what is decided unless it is given')
    plans.add_argument('--teacher-checkpoint', metavar='FILE', help="path, URL or 'zoo'; 'none' for a dry run with a "
                       'random teacher (default: of a stock config zoo, else what training it has left in work_dirs)')
    plans.add_argument('--method', default='channel_mlp', help='its name, or a file that declares one '
                       '(default: %(default)s)')
    plans.add_argument('--taps', nargs='+', type=tap, metavar='TAP', help='places that are matched: TAP for both '
                       'networks, or STUDENT_TAP=TEACHER_TAP')
    weights = plans.add_mutually_exclusive_group()
    weights.add_argument('--weight', type=positive, help='of the loss; it is not measured then')
    weights.add_argument('--ratio', type=positive, help="the loss over the student's own, by which the weight "
                       'is found (default: what the method declares)')
    plans.add_argument('--iterations', type=at_least(2), default=50, help='over which losses are measured '
                       '(default: %(default)s)')
    plans.add_argument('--images', type=images, default=200, help='validation images on which the teacher is checked; '
                       '0: not at all (default: %(default)s)')
    plans.add_argument('--out', metavar='CONFIG.py', help='where the config goes; never overwritten (default: in '
                       'configs/my)')
    plans.add_argument('--list-methods', action='store_true', help='list which methods fit this pair, and why others '
                       'do not; nothing is written')
    plans.add_argument('--dry-run', action='store_true', help='stop before the training; data may be missing')
    data = parser.add_argument_group("data of one's own, in COCO's format, for a student that is trained on COCO")
    data.add_argument('--data-root', help='folder that everything is below')
    for subset in ('train', 'val'):
        data.add_argument(f'--{subset}-ann', metavar='FILE.json', help='annotations, below --data-root')
        data.add_argument(f'--{subset}-images', metavar='FOLDER', help='images, below --data-root (default: found)')
    data.add_argument('--classes', nargs='+', metavar='NAME', help='(default: all categories of --train-ann)')
    add_run_options(parser)
    add_training_options(parser)
    return parser.parse_args(arguments)


def tap(text: str) -> Any:
    """A tap pair of the command line, as a config has it."""
    student, separator, teacher = text.partition('=')
    return dict(student=student, teacher=teacher) if separator else student


def positive(text: str) -> float:
    """A finite number above zero."""
    number = at_least(0, float)(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f'expected a positive number, got {text!r}')
    return number


def images(text: str) -> int:
    """A number of images: none, or enough to say something."""
    return 0 if text == '0' else at_least(10)(text)


def read_wishes(args: argparse.Namespace) -> Wishes:
    """What the command line asks for."""
    data = None
    if any(given is not None for given in (args.data_root, args.train_ann, args.val_ann, args.train_images,
                                           args.val_images, args.classes)):
        data = read_own_data(args.data_root or '.', dict(train=args.train_ann, val=args.val_ann), args.classes,
                             dict(train=args.train_images, val=args.val_images))
    return Wishes(
        args.student, args.teacher, args.teacher_checkpoint or ('none' if args.list_methods else None), args.method,
        args.taps, args.weight, args.ratio, args.iterations, args.images, data, args.out, args.cfg_options,
        args.dry_run or args.list_methods)


def check_training(args: argparse.Namespace) -> None:
    """Says what this machine cannot train before anything is planned."""
    try:
        configure_training(argparse.Namespace(**dict(
            vars(args), config=args.student, check_teacher=None, student_alone=None)))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def say(subject: str, decision: str) -> None:
    """Prints a decision."""
    print(f'{subject + ":":<9}{decision}', flush=True)


def show_methods(fits: Sequence[Fit]) -> None:
    """Prints which methods fit."""
    table = Table('method', 'fits', 'what is matched, or why it does not fit')
    for fit in fits:
        table.add_row(fit.method.name, '[green]yes[/]' if fit.objectives else '[red]no[/]',
                      escape(f'{fit.method.about}\n{fit.reason}'), end_section=True)
    Console(width=None if Console().is_terminal else 160).print(table)


def write(wishes: Wishes, configs: tuple[Config, Config]) -> None:
    """Plans, and writes what was planned."""
    MMLogger.get_instance('distill', log_level=logging.ERROR)
    found = plan(wishes, configs, say)
    for path, text in found.files.items():
        atomic_write(path, text)
        say('written', path)


def wait_for(file: str) -> None:
    """Waits until the first process has planned; if that fails, whoever started the processes ends them all."""
    while not osp.isfile(file):
        time.sleep(0.5)


if __name__ == '__main__':
    main()
