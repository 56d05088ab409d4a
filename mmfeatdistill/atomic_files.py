"""Files that are either complete or not there."""
import os
from pathlib import Path
from typing import Union


def atomic_write(path: Union[str, Path], content: Union[str, bytes]) -> None:
    """Writes a file next to its place and moves it there when it is complete.

    Args:
        path (str | Path): Of the file; its folder is made where it is missing.
        content (str | bytes): What it will hold; a killed process leaves nothing half-written under its name.

    Raises:
        OSError: It could not be written, for example as the disk is full; what was there before still is.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f'.{target.name}.{os.getpid()}.tmp')
    try:
        with open(temporary, 'wb') as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise OSError(error.errno, f'{error.strerror}. {target} could not be written; all files that were there before '
                      'still are') from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Union[str, Path]) -> None:
    """Removes what killed processes have left of files that they were writing.

    Args:
        folder (str | Path): Where :func:`atomic_write` has written; need not exist.
    """
    for temporary in Path(folder).glob('.*.tmp'):
        temporary.unlink(missing_ok=True)
