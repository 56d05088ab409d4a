"""Distills a student generation by generation: each is the teacher of the next (FEED, sequential).

It can be killed at any time; started again it goes on, also with more generations. The table is in generations.md and
generations.json in the folder of the seed, and has each generation as soon as it is there.
"""
import argparse
import json
import os.path as osp
import sys
from collections.abc import Sequence
from typing import Optional

from mmfeatdistill.atomic_files import atomic_write
from mmfeatdistill.engine.command_line import add_cfg_options, at_least
from mmfeatdistill.experiments.experiment import Experiment, Result
from mmfeatdistill.experiments.generations import Chain, finished_generations, generations_table, plan_generations
from mmfeatdistill.experiments.progress import ProgressBar
from mmfeatdistill.experiments.scheduler import ExperimentsFailed, run_experiments


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Parses the command line and trains the chain.

    Args:
        arguments (Sequence[str], optional): Defaults to None: those of the process.

    Returns:
        int: Exit code: 1 if a training failed.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help="a distillation config whose teacher has the student's own config")
    parser.add_argument('--generations', type=at_least(1), default=3,
                        help='distilled ones, after the first (default: 3)')
    parser.add_argument('--seed', type=at_least(0), default=1, help='of all trainings (default: 1)')
    parser.add_argument('--out', help='folder of all results; default: work_dirs/generations/<config name>')
    parser.add_argument('--first', metavar='CHECKPOINT', help='the first teacher; default: the student, trained alone')
    parser.add_argument('--threads', type=at_least(1), default=1, help='torch threads (default: 1)')
    add_cfg_options(parser, 'override settings of the config')
    args = parser.parse_args(arguments)
    name = osp.splitext(osp.basename(args.config))[0]
    out = args.out or osp.join('work_dirs', 'generations', name)
    chain = plan_generations(args.config, args.generations, args.seed, out, args.cfg_options, args.first)
    folder = osp.join(out, f'seed_{args.seed}')
    bar = ProgressBar(chain.generations.values())

    def report(experiment: Experiment, result: Result) -> None:
        bar.finished(experiment, result)
        bar.write(write_table(chain, folder))

    try:
        run_experiments(chain.generations.values(), jobs=1, threads=args.threads, on_progress=bar.progressed,
                        on_result=report)
    except ExperimentsFailed as failed:
        bar.close()
        print(failed, file=sys.stderr)
        return 1
    finally:
        bar.close()
    print(f'Table, checkpoints and logs: {folder}')
    return 0


def write_table(chain: Chain, folder: str) -> str:
    """Writes what is finished as Markdown and JSON; returns the former."""
    generations = finished_generations(chain)
    table = generations_table(chain.metric, generations)
    atomic_write(osp.join(folder, 'generations.md'), table)
    atomic_write(osp.join(folder, 'generations.json'),
                json.dumps([generation._asdict() for generation in generations], indent=2))
    return table


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit('\nStopped. The same command goes on from here.')
