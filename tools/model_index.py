"""Brings metafiles, model-index.yml and the tables of the READMEs up to date with the configs.

To be run after a config was added, renamed or changed. Results and weights are kept; of a config that is gone they are
an error.
"""
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from mmfeatdistill.atomic_files import atomic_write
from mmfeatdistill.release.metafiles import outdated


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Parses the command line and writes what is out of date.

    Args:
        arguments (Sequence[str], optional): Defaults to None: those of the process.

    Returns:
        int: Exit code: with ``--check``, 1 if something is out of date.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', nargs='?', default=Path(__file__).parents[1], type=Path,
                        help='the source tree (default: the one of this file)')
    parser.add_argument('--check', action='store_true', help='write nothing, only say what is out of date')
    args = parser.parse_args(arguments)
    if not (args.root / 'configs').is_dir():
        parser.error(f'{args.root} is no source tree: it has no folder configs')
    try:
        changed = outdated(args.root)
    except ValueError as error:
        parser.error(str(error))
    for path, text in changed.items():
        print(f'{path.relative_to(args.root.resolve())}: {"out of date" if args.check else "written"}')
        if not args.check:
            atomic_write(path, text)
    if not changed:
        print('Everything is up to date.')
    return 1 if args.check and changed else 0


if __name__ == '__main__':
    sys.exit(main())
