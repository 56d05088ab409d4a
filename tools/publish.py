"""Releases the student of a training: <config>_<date>-<sha8>.pth, with its config and log next to it.

The file holds the student's weights alone. Before it is written, it is loaded in the student's own config with nothing
missing and nothing unexpected, and that config's validation has to reproduce what the training logged. The config
next to it runs with the MM libraries' own test.py, without this project.
"""
import argparse
import sys
from collections.abc import Sequence
from typing import Optional

from mmfeatdistill.engine.command_line import at_least
from mmfeatdistill.release.metafiles import record
from mmfeatdistill.release.publish import TOLERANCE, publish


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Parses the command line and releases.

    Args:
        arguments (Sequence[str], optional): Defaults to None: those of the process.
    """
    args = parse(arguments)
    try:
        release = publish(args.work_dir, args.out, args.checkpoint, args.name, not args.skip_validation,
                          args.tolerance)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f'publish.py: {error}')
    kind = 'averaged (EMA) weights' if release.averaged else 'weights'
    print(f'{release.checkpoint}: the {kind} of the student')
    if own := release.own_parts():
        print(f'To run it, mmfeatdistill has to be installed: {", ".join(own)}')
    if args.skip_validation:
        print('Not validated: nothing shows yet that it reproduces what was logged.')
    for name, value in release.metrics.items():
        print(f'{name}: {value:g}')
    if args.metafile:
        try:
            record(args.metafile, release.name, release.results(), (
                f'{args.url.rstrip("/")}/{release.checkpoint.name}' if args.url else str(release.checkpoint)))
        except FileNotFoundError as error:
            sys.exit(f'publish.py: {error}')
        print(f'{args.metafile}: {release.name} recorded; tools/model_index.py brings its README up to date.')


def parse(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work_dir', help='where a training left checkpoints and logs')
    parser.add_argument('--out', default='work_dirs/releases', help='folder for the release (default: %(default)s)')
    parser.add_argument('--checkpoint', metavar='FILE', help='default: best_*.pth, else the last one')
    parser.add_argument('--name', help='default: the name of the config that was trained')
    parser.add_argument('--tolerance', type=at_least(0, float), default=TOLERANCE,
                        help='allowed difference of a metric to the log, as a part of its value (default: %(default)s)')
    parser.add_argument('--skip-validation', action='store_true', help='do not compare metrics with the log')
    parser.add_argument('--metafile', help='configs/<method>/metafile.yml, to record results and weights there')
    parser.add_argument('--url', help='where the file will be; the metafile gets this address followed by its name')
    args = parser.parse_args(arguments)
    if args.url and not args.metafile:
        parser.error('--url is written into a metafile; give --metafile too.')
    return args


if __name__ == '__main__':
    main()
