"""The command: ``python -m mmfeatdistill.mmcv_ops install | remove | status | table``."""
import argparse
import sys

from mmfeatdistill.mmcv_ops.completion import install, mmcv_folder, remove, state
from mmfeatdistill.mmcv_ops.operators import HOW_TO_COMPILE, NAMES

ABOUT = {
    'compiled': 'has compiled operators, which are used; nothing stands in for them',
    'completed': 'has no compiled operators and was completed: mmcv.ops works in every program',
    'another file': 'has an _ext.py that is not of mmfeatdistill',
    'bare': 'has no compiled operators: mmcv.ops works after `import mmfeatdistill`, and in every program after '
            '`python -m mmfeatdistill.mmcv_ops install`'}


def table() -> str:
    """All operators of mmcv and what stands in for them, in Markdown.

    Returns:
        str: Lines that end with a line feed.

    Examples:
        >>> '| `nms` | torchvision |' in table().splitlines()
        True
    """
    from mmfeatdistill.mmcv_ops.extension import STAND_INS
    rows = [f'| `{name}` | {STAND_INS[name].source if name in STAND_INS else "not available"} |'
            for name in sorted(NAMES)]
    return '\n'.join(['| operator | without compiling |', '| --- | --- |', *rows, ''])


def main(arguments: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments (list[str] | None): Of the command line; None for those of this process.

    Returns:
        int: Exit status: 1 if mmcv has something that must not be replaced, or is not there.
    """
    parser = argparse.ArgumentParser(
        prog='python -m mmfeatdistill.mmcv_ops', description='Operators for an mmcv that was installed without them.')
    parser.add_argument('action', choices=['install', 'remove', 'status', 'table'],
                        help='install: complete the installed mmcv, for programs that do not import mmfeatdistill; '
                             'remove: undo it; status: what is installed; table: all operators')
    action = parser.parse_args(arguments).action
    if action == 'table':
        sys.stdout.write(table())
        return 0
    try:
        folder = mmcv_folder()
        if action == 'install':
            print(install(folder))
        elif action == 'remove':
            print(remove(folder))
        else:
            found = state(folder)
            print(f'The mmcv in {folder} {ABOUT[found]}.')
            if found != 'compiled':
                print(f'{HOW_TO_COMPILE}\n\n{table()}', end='')
    except (OSError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
