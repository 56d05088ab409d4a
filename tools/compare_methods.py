"""The benchmark: trains teachers, students alone and distilled students with several seeds, and compares them.

It can be killed at any time; started again it goes on, also with more configs or seeds. The results are below the
folder given by --out, with the tables in benchmark.md, benchmark.csv and benchmark.json, and a picture of each table
next to the page. Where there are GPUs, each runs one training at a time. With --slurm nothing is run: a script is
printed that submits each training that is not finished as a job; afterwards --report-only makes the tables.

With --methods, STUDENT TEACHER are given in place of configs, as for tools/distill.py, and each of these methods is
planned as that command would do.
"""
import argparse
import json
import os
import os.path as osp
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from glob import glob
from typing import Any, Optional

from mmengine.config import Config

from mmfeatdistill.atomic_files import atomic_write
from mmfeatdistill.distill_config import is_distillation
from mmfeatdistill.engine.command_line import add_cfg_options, at_least
from mmfeatdistill.errors import ConfigError, config_key
from mmfeatdistill.experiments.comparison import Comparison, compare
from mmfeatdistill.experiments.comparison_figure import comparison_figure
from mmfeatdistill.experiments.experiment import Experiment
from mmfeatdistill.experiments.progress import ProgressBar
from mmfeatdistill.experiments.report import Table, tables
from mmfeatdistill.experiments.report_formats import csv_text, json_text, markdown
from mmfeatdistill.experiments.scheduler import ExperimentsFailed, default_jobs, run_experiments, with_needs
from mmfeatdistill.experiments.slurm import submission_script
from mmfeatdistill.experiments.step_timing import time_steps
from mmfeatdistill.planning.pair import load_configs
from mmfeatdistill.planning.plan import all_fits, places, plan
from mmfeatdistill.planning.wishes import Wishes
from mmfeatdistill.zoo.configs import load_config
from mmfeatdistill.zoo.packages import versions


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Parses the command line, trains what is missing, and writes the report.

    Args:
        arguments (Sequence[str], optional): Defaults to None: those of the process.

    Returns:
        int: Exit code: 1 if something failed.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    args = parse(arguments)
    configs = distillations(args.configs) if args.methods is None else planned(args)
    comparisons = compare(configs, args.seeds, args.out, args.cfg_options)
    check_metrics(comparisons)
    failures: list[str] = []
    if args.slurm:
        print(slurm_jobs(comparisons, args, arguments), end='')
    elif args.only:
        failures = run([the_only(comparisons, args)], comparisons, args)
    else:
        try:
            if not args.report_only:
                wanted = [experiment for comparison in comparisons for experiment in comparison.experiments]
                failures = run(wanted, comparisons, args)
        finally:
            report = write_report(comparisons, args, arguments)
        print(f'Report: {report}')
    for failure in failures:
        print(f'\n{failure}', file=sys.stderr)
    return 1 if failures else 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    # Whole words only: the command of a job, or of a report, is this one with some of them left out.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    parser.add_argument('configs', nargs='+', help='distillation configs, or patterns of such; others are skipped')
    parser.add_argument('--methods', nargs='+', metavar='METHOD', help="with STUDENT TEACHER as configs: names as "
                        "tools/distill.py --list-methods has them, or 'all' that fit; their configs go to --out")
    parser.add_argument('--teacher-checkpoint', metavar='FILE', help='with --methods, the weights by which losses are '
                        'measured (default: as tools/distill.py finds them)')
    parser.add_argument('--seeds', type=at_least(0), nargs='+', default=[1, 2, 3], help='default: 1 2 3')
    parser.add_argument('--out', default='work_dirs/benchmark', help='folder of all results (default: %(default)s)')
    parser.add_argument('--jobs', type=at_least(1), default=default_jobs(),
                        help='trainings side by side (default here: %(default)s)')
    parser.add_argument('--threads', type=at_least(1), default=1, help='torch threads of each (default: 1)')
    parser.add_argument('--time', type=at_least(0), default=10, metavar='ROUNDS',
                        help='rounds in which each distilled step is timed afterwards; 0: not at all (default: 10)')
    parser.add_argument('--report', metavar='FILE', help='where the report goes (default: benchmark.md in --out)')
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument('--report-only', action='store_true', help='train nothing; report what is finished')
    kind.add_argument('--slurm', action='store_true',
                      help='train nothing; print a script that submits what is not finished')
    kind.add_argument('--only', metavar='seed_N/NAME',
                      help='run the training of this folder of --out and no other, without a report')
    add_cfg_options(parser, 'override settings of all configs, teachers included')
    return parser.parse_args(arguments)


def planned(args: argparse.Namespace) -> list[str]:
    """The configs of --methods; those that a killed command has written are left as they are."""
    if len(args.configs) != 2:
        raise SystemExit(f'--methods: expected STUDENT TEACHER in place of configs, got {len(args.configs)} names.')
    student, teacher = args.configs
    wishes = Wishes(student, teacher, args.teacher_checkpoint, images=0, cfg_options=args.cfg_options)
    files = []
    try:
        configs = load_configs(wishes)
        for name in args.methods if args.methods != ['all'] else fitting(wishes, configs):
            wanted = replace(wishes, method=name)
            wanted = replace(wanted, out=osp.join(args.out, 'configs', osp.basename(places(wanted, *configs)[0])))
            files.append(str(wanted.out))
            if not osp.isfile(files[-1]):
                atomic_write(files[-1], plan(wanted, configs, partial(say, name)).files[files[-1]])
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    return files


def fitting(wishes: Wishes, configs: tuple[Config, Config]) -> list[str]:
    """The methods that fit a pair; says of the others why they do not."""
    fits = all_fits(replace(wishes, checkpoint='none', dry_run=True), configs, partial(say, 'pair'))
    for fit in fits:
        if not fit.objectives:
            say(fit.method.name, 'left out', fit.reason)
    return [fit.method.name for fit in fits if fit.objectives]


def say(name: str, subject: str, decision: str) -> None:
    """Prints a decision about a method."""
    print(f'{name}: {subject}: {decision}', flush=True)


def distillations(patterns: Sequence[str]) -> list[str]:
    """The distillation configs among some files."""
    files = dict.fromkeys(osp.relpath(file) for pattern in patterns for file in sorted(glob(pattern)) or [pattern])
    with config_key('configs'):
        chosen = [file for file in files if is_distillation(load_config(file))]
    for file in files:
        if file not in chosen:
            print(f'{file}: no distillation config, skipped.', file=sys.stderr)
    if not chosen:
        raise SystemExit('There is no distillation config among those given.')
    return chosen


def check_metrics(comparisons: list[Comparison]) -> None:
    """Finds before the first training what the report would find after the last."""
    try:
        for comparison in comparisons:
            comparison.metric  # noqa: B018 - raises
    except ValueError as error:
        raise SystemExit(f'{error} It can be given for all of them by --cfg-options.') from None


def by_name(comparisons: list[Comparison], args: argparse.Namespace) -> dict[str, Experiment]:
    """All experiments by their folder in --out, each after those that it needs."""
    wanted = with_needs(experiment for comparison in comparisons for experiment in comparison.experiments)
    return {osp.relpath(experiment.work_dir, args.out): experiment for experiment in wanted}


def slurm_jobs(comparisons: list[Comparison], args: argparse.Namespace, arguments: Sequence[str]) -> str:
    """The script of --slurm."""
    command = [sys.executable, osp.relpath(__file__), *(word for word in arguments if word != '--slurm')]
    return submission_script(by_name(comparisons, args), lambda name: [*command, '--only', name], os.getcwd(),
                             osp.join(args.out, 'slurm'))


def the_only(comparisons: list[Comparison], args: argparse.Namespace) -> Experiment:
    """The experiment of --only, if what it needs is there."""
    experiments = by_name(comparisons, args)
    if args.only not in experiments:
        raise SystemExit(f'--only {args.only}: there is no such training. There are: {", ".join(experiments)}.')
    for need in experiments[args.only].needs.values():
        if need.result() is None:
            raise SystemExit(f'--only {args.only}: it needs {osp.relpath(need.work_dir, args.out)}, which is not '
                             'finished.')
    return experiments[args.only]


def run(wanted: list[Experiment], comparisons: list[Comparison], args: argparse.Namespace) -> list[str]:
    """Trains and times what is missing; returns what failed."""
    failures = []
    bar = ProgressBar(wanted)
    try:
        run_experiments(wanted, args.jobs, args.threads, bar.progressed, bar.finished)
    except ExperimentsFailed as failed:
        failures += [f'{experiment.work_dir}: {text}' for experiment, text in failed.failures.items()]
    finally:
        bar.close()
    if args.time:
        first = [comparison.distilled for comparison in comparisons
                 if comparison.seed == args.seeds[0] and comparison.distilled in wanted]
        timed = time_steps(first, args.time, args.threads,
                           lambda experiment: print(f'{experiment.work_dir}: timing its steps', flush=True))
        failures += [f'{experiment.work_dir}: {text}' for experiment, text in timed.items()]
    return failures


def write_report(comparisons: list[Comparison], args: argparse.Namespace, arguments: Sequence[str]) -> str:
    """Writes the tables of what is finished, and their pictures; returns where the page is."""
    found = tables(comparisons)
    page = args.report or osp.join(args.out, 'benchmark.md')
    data = osp.join(args.out, 'benchmark.json')
    # The command that makes all of what is reported, even if it was made in several steps.
    facts = circumstances(args, [word for word in arguments if word != '--report-only'])
    if args.report_only:
        # Nothing was trained by this command, perhaps not even on this machine.
        facts.update(cores='not recorded', jobs='not recorded')
        if osp.isfile(data):
            with open(data) as file:
                facts = dict(json.load(file)['circumstances'], command=facts['command'])
    lines = [f'Command: `{facts["command"]}`', f'{facts["date"]}; {facts["versions"]}',
             f'CPU cores: {facts["cores"]}; trainings side by side: {facts["jobs"]}; '
             f'torch threads of each: {facts["threads"]}']
    atomic_write(page, markdown(found, 'Benchmark', lines, [draw(table, page) for table in found]))
    atomic_write(osp.join(args.out, 'benchmark.csv'), csv_text(found))
    atomic_write(data, json_text(found, facts))
    return page


def draw(table: Table, page: str) -> str:
    """Writes the picture of a table next to the page; returns its name."""
    metric = table.metric.replace('/', '-')
    name = f'{osp.splitext(osp.basename(page))[0]}_{table.student}_{metric}.png'
    atomic_write(osp.join(osp.dirname(page), name), comparison_figure(table))
    return name


def circumstances(args: argparse.Namespace, arguments: Sequence[str]) -> dict[str, Any]:
    """What the results may depend on, without this machine's folders."""
    shown = [osp.relpath(word) if osp.isabs(word) and osp.abspath(word).startswith(os.getcwd() + osp.sep) else
             osp.join('...', osp.basename(word)) if osp.isabs(word) else word for word in arguments]
    return dict(
        command=f'python tools/compare_methods.py {shlex.join(shown)}', date=str(date.today()), cores=os.cpu_count(),
        jobs=args.jobs, threads=args.threads, versions=versions())


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit('\nStopped. The same command goes on from here.')
