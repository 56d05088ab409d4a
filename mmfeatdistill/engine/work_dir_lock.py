"""One training in a work directory at a time."""
import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # no POSIX system: nothing is locked there
    fcntl = None  # type: ignore[assignment]

LOCK = 'training_lock'
"""Name of the file that is locked. What it says is for people; a file whose process has ended locks nothing."""

_TAKEN = (errno.EACCES, errno.EAGAIN)
_CANNOT_LOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class WorkDirInUseError(OSError):
    """Another process trains in this work directory."""


@contextmanager
def only_training_in(work_dir: str) -> Iterator[None]:
    """Within it, no other process can train in a work directory, where two would overwrite each other's checkpoints.

    The lock is the kernel's and belongs to this process alone, not to its data workers: it ends with the process,
    however that ends, so a restarted training never finds its own. It also holds between hosts that share a network
    file system with locks. On a file system without them, nothing is locked.

    Args:
        work_dir (str): Of a training; made where it is missing.

    Raises:
        WorkDirInUseError: Another process is within it.
        OSError: The file for the lock cannot be written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, only_training_in(folder):
        ...     os.listdir(folder)
        ['training_lock']
    """
    if fcntl is None:
        yield
        return
    Path(work_dir).mkdir(parents=True, exist_ok=True)
    with open(Path(work_dir, LOCK), 'a+') as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                file.seek(0)
                raise WorkDirInUseError(_explain(work_dir, file.read().strip())) from None
            if error.errno not in _CANNOT_LOCK:
                raise
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}, since {time.strftime("%Y-%m-%d %H:%M:%S")}\n')
        file.flush()
        yield


def _explain(work_dir: str, owner: str) -> str:
    return (f'another training is at work in {work_dir}: {owner or "by a process that is just starting"}. Two would '
            "overwrite each other's checkpoints, so this one has ended and has left the other's as they are. Give it a "
            'folder of its own by --work-dir, or end the other first and start this one with --resume, to go on after '
            'its last checkpoint. (Where the host of the other is down, a network file system keeps its lock for some '
            'minutes.)')
