"""Reports on a distillation that was trained: five lines, and a picture in its work directory.

The same comes at the end of every training; this is for comparing it afterwards with the student alone.
"""
import argparse
import sys
from collections.abc import Sequence
from typing import Optional

from mmfeatdistill.engine.training_report import read_training, write_report


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Parses the command line and reports.

    Args:
        arguments (Sequence[str], optional): Defaults to None: those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work_dir', metavar='WORK_DIR', help='of a distillation')
    parser.add_argument('--student-alone', metavar='WORK_DIR', help='of a training of the student alone')
    args = parser.parse_args(arguments)
    try:
        alone = None if args.student_alone is None else read_training(args.student_alone)
        print('\n'.join(write_report(args.work_dir, alone)))
    except FileNotFoundError as error:
        sys.exit(f'report.py: {error}')


if __name__ == '__main__':
    main()
