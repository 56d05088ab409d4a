"""What is to be done when the disk or network file system that a training writes to fails."""
import errno
import logging
import os
import os.path as osp
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

from mmfeatdistill.atomic_files import FileNotWrittenError
from mmfeatdistill.checkpoints.atomic_backend import last_readable

_FULL = {
    errno.ENOSPC: ('the disk is full', 'Free some space there'),
    errno.EDQUOT: ('the quota is used up', 'Remove files of yours there, or ask for a larger quota')}
_UNREACHABLE = {number: ('its file system does not answer, or is broken', 'See to it that the folder can be read and '
                         'written again') for number in (
    errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT, errno.EHOSTDOWN,
    errno.EREMOTEIO)}
_READ_ONLY = {errno.EROFS: ('it is mounted read-only', 'Mount it for writing (a disk with errors is made read-only by '
                            'the system; dmesg tells)')}
_OF_FILES = {
    errno.EFBIG: ('the file is larger than a file may be there', 'Raise the limit (ulimit -f)'),
    errno.EACCES: ('this user may not write there', 'Give this user the right to'),
    errno.EPERM: ('this user may not write there', 'Give this user the right to'),
    errno.ENOTDIR: ('a part of the path is a file, not a folder', 'Move that file away'),
    errno.EEXIST: ('a part of the path is a file, not a folder', 'Move that file away'),
    errno.ENOENT: ('it is gone: it was removed or moved, or its file system is no longer mounted', 'Bring it back')}
"""What would be no fault of a disk with other files than those that a training writes."""

_FAULTS = {**_FULL, **_READ_ONLY, **_UNREACHABLE, **_OF_FILES}
_TEMPLATES = ('epoch_{}.pth', 'iter_{}.pth')


class DiskFaultError(OSError):
    """A file could not be written or read; the message says where, what is left, and what to do."""


@contextmanager
def disk_faults_explained(work_dir: str, folder: Optional[str] = None,
                          template: Optional[str] = None) -> Iterator[None]:
    """Within it, an error of a disk says what has happened, which checkpoint is left, and how to go on.

    A log that cannot be written is told once, in place of a traceback for each line, and ends nothing.

    Args:
        work_dir (str): Of a training.
        folder (str, optional): Where its checkpoints are. Defaults to None: in ``work_dir``.
        template (str, optional): Of their names, as in ``CheckpointHook.filename_tmpl``. Defaults to None: mmengine's.

    Raises:
        DiskFaultError: In place of another OSError, which is its cause.

    Examples:
        >>> with disk_faults_explained('work_dirs/my_run'):
        ...     print('trains')
        trains
    """
    folder = folder or work_dir
    before = logging.FileHandler.handleError
    logging.FileHandler.handleError = _say_once  # type: ignore[method-assign, assignment]
    try:
        yield
    except OSError as error:
        if isinstance(error, DiskFaultError) or not _is_of_a_disk(error, [work_dir, folder]):
            raise
        templates = (template,) if template else _TEMPLATES
        raise DiskFaultError(explain(error, work_dir, folder, templates)) from error
    finally:
        logging.FileHandler.handleError = before  # type: ignore[method-assign]


def explain(error: OSError, work_dir: str, folder: str, templates: tuple[str, ...] = _TEMPLATES) -> str:
    """Says in words what has happened to a file of a training.

    Args:
        error (OSError): Of a disk.
        work_dir (str): Of the training.
        folder (str): Where its checkpoints are.
        templates (tuple[str, ...]): Of the names of these.

    Returns:
        str: A few sentences.

    Examples:
        >>> full = OSError(errno.ENOSPC, 'No space left on device', 'work_dirs/a/epoch_2.pth')
        >>> print(explain(full, 'work_dirs/a', 'work_dirs/a').partition(' (')[0])
        work_dirs/a/epoch_2.pth cannot be written: the disk is full
    """
    happened, remedy = _FAULTS[error.errno or 0]
    path = _path_of(error)
    verb = 'written' if error.errno not in _UNREACHABLE or isinstance(error, FileNotWrittenError) else 'read or written'
    space = f', {_space(path or work_dir)}' if error.errno in _FULL else ''
    reason = os.strerror(error.errno or 0)
    where = path or (f'a file in {work_dir}' if verb == 'written' else f'a file, in {work_dir} or of the data,')
    last, seen = _last(folder, templates)
    if last is not None:
        left = f'{last} is complete, and is the last checkpoint.'
        of_data = path is not None and not _is_inside(path, [work_dir, folder])
        other = '' if of_data else f'copy {folder} to another disk and name that by --work-dir'
        again = 'start the same command with --resume: it goes on after that checkpoint.'
        if error.errno in _FULL:
            remedy += f' (a checkpoint takes {_megabytes(last.stat().st_size)})'
    elif seen and (osp.isdir(folder) or error.errno not in {*_UNREACHABLE, errno.ENOENT}):
        left, other, again = f'There is no complete checkpoint in {folder}.', 'name another folder by --work-dir', ''
    else:
        left = f'What is in {folder} cannot be seen now; checkpoints that had been saved are still on that disk.'
        other, again = '', 'start the same command with --resume: it goes on after the last of them, if there is one.'
    todo = f'{remedy}{other and f", or {other}"}; then {again or "start again."}'
    return f'{where} cannot be {verb}: {happened} ({reason}{space}). {left} {todo}'


def _is_of_a_disk(error: OSError, folders: list[str]) -> bool:
    path = _path_of(error)
    if path is None:  # as of a write to a file that is open; but sockets have errors of their own
        return error.errno in {*_FULL, *_READ_ONLY, errno.EIO, errno.ESTALE}
    return error.errno in _FAULTS and (error.errno not in _OF_FILES or _is_inside(path, folders))


def _is_inside(path: str, folders: list[str]) -> bool:
    """Whether a path belongs to folders; so does what is above them, because of which they cannot be made."""
    path = osp.abspath(path)
    return any(osp.commonpath([osp.abspath(folder), path]) in (osp.abspath(folder), path) for folder in folders)


def _path_of(error: OSError) -> Optional[str]:
    if isinstance(error, FileNotWrittenError):
        return error.path
    return error.filename if isinstance(error.filename, str) else None


def _last(folder: str, templates: tuple[str, ...]) -> tuple[Optional[Path], bool]:
    """The last complete checkpoint, and whether what is in the folder could be read."""
    try:
        found = [file for template in templates if (file := last_readable(folder, template)) is not None]
        return max(found, key=lambda file: file.stat().st_mtime_ns, default=None), True
    except OSError:
        return None, False


def _space(path: str) -> str:
    while not osp.isdir(path) and osp.dirname(path) != path:
        path = osp.dirname(path)
    try:
        usage, inodes = shutil.disk_usage(path or '.'), os.statvfs(path or '.')
    except OSError:
        return 'its size is unknown'
    if inodes.f_files and not inodes.f_favail:
        return f'no more than {inodes.f_files} files fit on it'
    return f'{_megabytes(usage.free)} of {_megabytes(usage.total)} are free'


def _megabytes(size: float) -> str:
    return f'{size / 2**20:,.1f} MB'


def _say_once(handler: logging.FileHandler, record: logging.LogRecord) -> None:
    """In place of ``handleError``, which prints a traceback for each line of a log."""
    error = sys.exc_info()[1]
    if not isinstance(error, OSError):
        logging.Handler.handleError(handler, record)
    elif not getattr(handler, 'has_failed', False):
        vars(handler)['has_failed'] = True
        print(f'{handler.baseFilename} cannot be written ({error.strerror}): from now on the log is on the console '
              'only, or has gaps.', file=sys.stderr)
