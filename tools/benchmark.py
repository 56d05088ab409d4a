"""The benchmark: trains teachers, students alone and distilled students with several seeds, and compares them.

It can be killed at any time; started again it goes on, also with more configs or seeds. The results are below the
folder given by --out, with the tables in benchmark.md, benchmark.csv and benchmark.json.
"""
import argparse
import json
import os
import os.path as osp
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from glob import glob
from typing import Any, Optional

import mmengine
import torch
from mmengine.config import DictAction

from mmfeatdistill.engine import Comparison, ExperimentsFailed, compare, default_jobs, is_distillation, run_experiments
from mmfeatdistill.engine.progress import ProgressBar
from mmfeatdistill.engine.report import tables
from mmfeatdistill.engine.report_formats import csv_text, json_text, markdown
from mmfeatdistill.engine.step_timing import time_steps
from mmfeatdistill.files import write_whole
from mmfeatdistill.version import __version__


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Parses the command line, trains what is missing, and writes the report.

    Args:
        arguments (Sequence[str], optional): Defaults to None: those of the process.

    Returns:
        int: Exit code: 1 if something failed.
    """
    args = parse(arguments)
    comparisons = compare(distillations(args.configs), args.seeds, args.out, args.cfg_options)
    failures: list[str] = []
    try:
        if not args.report_only:
            failures = run(comparisons, args)
    finally:
        report = write_report(comparisons, args, sys.argv[1:] if arguments is None else arguments)
    print(f'Report: {report}')
    for failure in failures:
        print(f'\n{failure}', file=sys.stderr)
    return 1 if failures else 0


def parse(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', help='distillation configs, or patterns of such; others are skipped')
    parser.add_argument('--seeds', type=int, nargs='+', default=[1, 2, 3], help='default: 1 2 3')
    parser.add_argument('--out', default='work_dirs/benchmark', help='folder of all results (default: %(default)s)')
    parser.add_argument('--jobs', type=int, default=default_jobs(),
                        help='trainings side by side (default here: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='torch threads of each (default: 1)')
    parser.add_argument('--time', type=int, default=10, metavar='ROUNDS',
                        help='rounds in which each distilled step is timed afterwards; 0: not at all (default: 10)')
    parser.add_argument('--report', metavar='FILE', help='where the report goes (default: benchmark.md in --out)')
    parser.add_argument('--report-only', action='store_true', help='train nothing; report what is finished')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='override settings of all configs, teachers included')
    return parser.parse_args(arguments)


def distillations(patterns: Sequence[str]) -> list[str]:
    """The distillation configs among some files."""
    files = dict.fromkeys(osp.relpath(file) for pattern in patterns for file in sorted(glob(pattern)) or [pattern])
    chosen = [file for file in files if is_distillation(file)]
    for file in files:
        if file not in chosen:
            print(f'{file}: no distillation config, skipped.')
    if not chosen:
        raise SystemExit('There is no distillation config among those given.')
    return chosen


def run(comparisons: list[Comparison], args: argparse.Namespace) -> list[str]:
    """Trains and times what is missing; returns what failed."""
    failures = []
    wanted = [experiment for comparison in comparisons for experiment in comparison.experiments]
    bar = ProgressBar(wanted)
    try:
        run_experiments(wanted, args.jobs, args.threads, bar.progressed, bar.finished)
    except ExperimentsFailed as failed:
        failures += [f'{experiment.work_dir}: {text}' for experiment, text in failed.failures.items()]
    finally:
        bar.close()
    if args.time:
        first = [comparison.distilled for comparison in comparisons if comparison.seed == args.seeds[0]]
        timed = time_steps(first, args.time, args.threads,
                           lambda experiment: print(f'{experiment.work_dir}: timing its steps', flush=True))
        failures += [f'{experiment.work_dir}: {text}' for experiment, text in timed.items()]
    return failures


def write_report(comparisons: list[Comparison], args: argparse.Namespace, arguments: Sequence[str]) -> str:
    """Writes the tables of what is finished; returns where the page is."""
    found = tables(comparisons)
    page = args.report or osp.join(args.out, 'benchmark.md')
    data = osp.join(args.out, 'benchmark.json')
    # The command that makes all of what is reported, even if it was made in several steps.
    facts = circumstances(args, [word for word in arguments if word != '--report-only'])
    if args.report_only and osp.isfile(data):
        with open(data) as file:
            facts = dict(json.load(file)['circumstances'], command=facts['command'])
    lines = [f'Command: `{facts["command"]}`', f'{facts["date"]}; {facts["versions"]}',
             f'CPU cores: {facts["cores"]}; trainings side by side: {facts["jobs"]}; '
             f'torch threads of each: {facts["threads"]}']
    write_whole(page, markdown(found, 'Benchmark', lines))
    write_whole(osp.join(args.out, 'benchmark.csv'), csv_text(found))
    write_whole(data, json_text(found, facts))
    return page


def circumstances(args: argparse.Namespace, arguments: Sequence[str]) -> dict[str, Any]:
    """What the results may depend on, without this machine's folders."""
    shown = [osp.relpath(word) if osp.isabs(word) and osp.abspath(word).startswith(os.getcwd() + osp.sep) else
             osp.join('...', osp.basename(word)) if osp.isabs(word) else word for word in arguments]
    return dict(
        command=f'python tools/benchmark.py {shlex.join(shown)}', date=str(date.today()), cores=os.cpu_count(),
        jobs=args.jobs, threads=args.threads,
        versions=f'mmfeatdistill {__version__}, Python {platform.python_version()}, torch {torch.__version__}, '
                 f'mmengine {mmengine.__version__}')


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit('\nStopped. The same command goes on from here.')
