"""Completes an installed mmcv that has no compiled operators, for programs that do not import this project."""
import importlib.util
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path
from typing import Literal

from mmfeatdistill.atomic_files import atomic_write
from mmfeatdistill.mmcv_ops import EXTENSION, STAND_IN

State = Literal['compiled', 'completed', 'another file', 'bare']


def mmcv_folder() -> Path:
    """Where mmcv is installed; it is not imported.

    Returns:
        Path: The folder of the package.

    Raises:
        ImportError: mmcv is not installed.

    Examples:
        >>> mmcv_folder().name
        'mmcv'
    """
    spec = importlib.util.find_spec('mmcv')
    if spec is None or spec.origin is None:
        raise ImportError('mmcv is not installed, so that there is nothing to complete.')
    return Path(spec.origin).parent


def state(folder: Path) -> State:
    """What an installed mmcv has for its operators.

    Args:
        folder (Path): Of the package mmcv.

    Returns:
        str: ``'compiled'``, ``'completed'`` (by `install`), ``'another file'`` (an ``_ext.py`` that is not of this
        project), or ``'bare'``.

    Examples:
        >>> state(Path('nowhere'))
        'bare'
    """
    importlib.invalidate_caches()  # folders are remembered by their time, which is too coarse right after a change
    spec = PathFinder.find_spec(EXTENSION, [str(folder)])
    if spec is None or spec.origin is None:
        return 'bare'
    if spec.origin.endswith(tuple(EXTENSION_SUFFIXES)):
        return 'compiled'
    # Its first line names this project in every version of the file.
    return 'completed' if 'mmfeatdistill' in Path(spec.origin).read_text().partition('\n')[0] else 'another file'


def install(folder: Path) -> str:
    """Puts the stand-in next to mmcv, so that whatever imports ``mmcv.ops`` finds it.

    Args:
        folder (Path): Of the package mmcv.

    Returns:
        str: What was done.

    Raises:
        FileExistsError: mmcv has compiled operators, or an ``_ext.py`` that is not of this project.
        OSError: The folder cannot be written to.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     done, found = install(Path(folder)), state(Path(folder))
        >>> found
        'completed'
    """
    found, file = state(folder), folder / '_ext.py'
    if found == 'compiled':
        raise FileExistsError(f'The mmcv in {folder} has compiled operators, which are used; nothing is to be done.')
    if found == 'another file':
        raise FileExistsError(f'{file} is not of mmfeatdistill and is left as it is; look what put it there.')
    atomic_write(file, STAND_IN.read_text())
    return f'{file} is there: mmcv.ops works in every program of this environment that can import mmfeatdistill.'


def remove(folder: Path) -> str:
    """Undoes `install`.

    Args:
        folder (Path): Of the package mmcv.

    Returns:
        str: What was done.

    Raises:
        FileExistsError: The ``_ext.py`` that is there is not of this project.
        OSError: The folder cannot be written to.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     done = install(Path(folder)), remove(Path(folder))
        ...     state(Path(folder))
        'bare'
    """
    file = folder / '_ext.py'
    if not file.exists():
        return f'There is no {file}; nothing is to be done.'
    if 'mmfeatdistill' not in file.read_text().partition('\n')[0]:
        raise FileExistsError(f'{file} is not of mmfeatdistill and is left as it is.')
    file.unlink()
    return f'{file} is gone: mmcv is as it was installed.'
