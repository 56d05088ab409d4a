"""Times distilled training steps against the sum of their parts.

On one batch of each config's own data with its own weights; or, for networks whose data and weights are not at hand,
with --images on random images and random weights.
"""
import argparse
import copy
import json
import logging
import os.path as osp
from dataclasses import asdict
from datetime import date
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from rich.console import Console
from rich.table import Table

from mmfeatdistill.atomic_files import atomic_write
from mmfeatdistill.distill_config import with_teacher_options
from mmfeatdistill.engine.command_line import add_cfg_options, at_least, load_distillation
from mmfeatdistill.step_costs.build_time import measure_build
from mmfeatdistill.step_costs.figure import step_figure
from mmfeatdistill.step_costs.measure import StepCosts, measure_step
from mmfeatdistill.step_costs.random_batch import random_batch
from mmfeatdistill.step_costs.report import step_report
from mmfeatdistill.teacher.initialization import without_pretrained
from mmfeatdistill.zoo.packages import versions

LABELS = dict(student='student step alone', teacher='teacher to its last tap',
              objectives='connectors and losses', distilled='distilled step',
              plain_teacher='teacher without acceleration')


def main() -> None:
    """Parses the command line, measures each config, prints tables and writes what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='config', help='a distillation config')
    parser.add_argument('--rounds', type=at_least(1), default=200, help='rounds that count, at most (default: 200)')
    parser.add_argument('--within', type=at_least(0, float), default=0.01,
                        help='fewer rounds, but ten, once the ratio is known this well (default: 0.01)')
    parser.add_argument('--warmup', type=at_least(0), default=3, help='rounds before them (default: 3)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--images', type=at_least(1), nargs=3, metavar=('COUNT', 'HEIGHT', 'WIDTH'),
                        help='random images of this size and random weights')
    parser.add_argument('--teachers', type=at_least(1), metavar='COUNT',
                        help='so many teachers, each like that of the config')
    parser.add_argument('--build', action='store_true', help='also measure what building the distiller costs')
    add_cfg_options(parser, 'override settings, such as model.teacher.checkpoint=None')
    parser.add_argument('--json', metavar='FILE', help='also write the figures to a file, next to those that are in it')
    parser.add_argument('--plot', metavar='FILE', help='also draw all in the file of --json that have one teacher')
    parser.add_argument('--report', metavar='FILE', help='also write a page on them, with the picture of --plot')
    args = parser.parse_args()
    MMLogger.get_instance('benchmark_step', log_level=logging.ERROR)
    found: dict[str, Any] = {}
    if args.json and osp.isfile(args.json):
        try:
            with open(args.json) as file:
                found = json.load(file)
        except ValueError as error:
            parser.error(f'--json: {args.json} holds something else than figures: {error}')
    for path in args.configs:
        cfg = configured(path, args)
        batch = random_batch(cfg, *args.images) if args.images else None
        costs = measure_step(cfg, args.rounds, args.within, args.warmup, args.device, batch)
        build = measure_build(cfg)._asdict() if args.build else None
        show(path, costs, args)
        if build:
            print(f'building the distiller / building student and teacher: {build["ratio"]:.3f}')
        found[name_of(path, args)] = asdict(costs) | dict(build=build) | circumstances(path, args)
        if args.json:
            atomic_write(args.json, json.dumps(found, indent=2))
    if args.plot:
        atomic_write(args.plot, step_figure({name: entry['seconds'] for name, entry in found.items()
                                            if not entry['teachers']}))
    if args.report:
        picture = osp.relpath(args.plot, osp.dirname(args.report) or '.') if args.plot else ''
        atomic_write(args.report, step_report(list(found.values()), picture))


def configured(path: str, args: argparse.Namespace) -> Config:
    """A config with the options of the command; for random images, without anything to download."""
    cfg = load_distillation(path, None)
    if args.images:
        cfg.model.student = without_weights(cfg.model.student.to_dict())
        cfg.model.teacher = with_teacher_options(cfg.model.teacher, checkpoint=None)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if args.teachers:
        cfg.model.teacher = [copy.deepcopy(cfg.model.teacher) for _ in range(args.teachers)]
    return cfg


def without_weights(model: Any) -> Any:
    """A model's config whose parts start from random weights."""
    if isinstance(model, (list, tuple)):
        return type(model)(map(without_weights, model))
    if not isinstance(model, dict):
        return model
    kept = {key: without_weights(value) for key, value in model.items() if key not in ('pretrained', 'init_cfg')}
    init_cfg = without_pretrained(model.get('init_cfg'))
    # Left out rather than None, so that a part that loads nothing is initialized as its class does by default.
    return kept if init_cfg is None else dict(kept, init_cfg=init_cfg)


def name_of(path: str, args: argparse.Namespace) -> str:
    """The config's name, with what was changed of it."""
    images = ['x'.join(map(str, args.images))] if args.images else []
    options = [f'{key.rpartition("model.")[2]}={value}' for key, value in (args.cfg_options or {}).items()
               if key != 'model.teacher.checkpoint']
    teachers = [f'{args.teachers} teachers'] if args.teachers else []
    return ' '.join([osp.basename(path).removesuffix('.py'), *images, *teachers, *options])


def show(path: str, costs: StepCosts, args: argparse.Namespace) -> None:
    """Prints the tables of one config."""
    table = Table('part', 'median time (ms)', 'peak memory added (MiB)', title=name_of(path, args))
    for part, seconds in costs.seconds.items():
        table.add_row(LABELS[part], f'{1000 * seconds:.1f}', f'{costs.peak_mib[part]:.1f}')
    operators = Table('operator', 'part of the distilled step')
    for name, share in costs.operators.items():
        operators.add_row(name, f'{share:.1%}')
    Console().print(table, operators)
    ratios = (f'{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})'
              for ratio in (costs.ratio, costs.plain_ratio, costs.by_hand))
    print('distilled step / sum of the three parts: {}; / student and plain teacher: {}; by hand at least: {}'.format(
        *ratios))
    memory = costs.memory_mib
    print(f'median of {costs.rounds} rounds, {args.device}, torch {torch.__version__}, '
          f'{torch.get_num_threads()} thread(s)\n'
          f'memory at the peak / the least that it could be: {memory["distilled"] / memory["floor"]:.3f}')
    if costs.difference:
        print(f'the accelerated teacher differs by {costs.difference:.1e} of its largest feature')


def circumstances(path: str, args: argparse.Namespace) -> dict[str, Any]:
    """What the figures may depend on."""
    return dict(config=osp.basename(path).removesuffix('.py'), images=args.images, teachers=args.teachers,
                options={key: str(value) for key, value in (args.cfg_options or {}).items()},
                device=args.device, threads=torch.get_num_threads(), date=str(date.today()),
                versions=versions())


if __name__ == '__main__':
    main()
