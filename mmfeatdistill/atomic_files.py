"""Files that are either complete or not there."""
import os
from contextlib import suppress
from pathlib import Path
from typing import Union


class FileNotWrittenError(OSError):
    """A file could not be written; what was there before still is.

    Attributes:
        path (str): Of the file.
    """

    path = ''


def atomic_write(path: Union[str, Path], content: Union[str, bytes]) -> None:
    """Writes a file next to its place and moves it there when it is complete.

    Args:
        path (str | Path): Of the file; its folder is made where it is missing.
        content (str | bytes): What it will hold; a killed process leaves nothing half-written under its name.

    Raises:
        FileNotWrittenError: It could not be written, for example as the disk is full; what was there before still is.
    """
    target = Path(path)
    temporary = target.with_name(f'.{target.name}.{os.getpid()}.tmp')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, 'wb') as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        failed = FileNotWrittenError(error.errno, f'{error.strerror}. {target} could not be written; all files that '
                                     'were there before still are')
        failed.path = str(target)
        raise failed from error
    finally:
        with suppress(OSError):  # of the same fault, which is the one to tell
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Union[str, Path]) -> None:
    """Removes what killed processes have left of files that they were writing.

    Args:
        folder (str | Path): Where :func:`atomic_write` has written; need not exist.
    """
    for temporary in Path(folder).glob('.*.tmp'):
        temporary.unlink(missing_ok=True)
