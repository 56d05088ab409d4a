"""Checkpoints that are either complete or not there."""
import logging
import os.path as osp
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Optional, Union

import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log

from mmfeatdistill.atomic_files import atomic_write
from mmfeatdistill.checkpoints.safe_load import CheckpointError, UntrustedCheckpointError, read_checkpoint_file

WHOLE_FILES = 'mmfeatdistill_whole_files'
"""Name of :class:`WholeFileBackend` in mmengine."""


@register_backend(WHOLE_FILES)
class WholeFileBackend(LocalBackend):
    """mmengine's local files, written at once (see :func:`mmfeatdistill.atomic_files.atomic_write`).

    A file is removed when the next one has been written next to it: mmengine removes the oldest checkpoint, which may
    be the only one, before it saves the next.
    """

    _outdated: ClassVar[list[Path]] = []  # of all, as mmengine makes one backend to remove and another to write

    def put(self, obj: bytes, filepath: Union[str, Path]) -> None:
        """Writes bytes to a file, and then removes what it replaces.

        Args:
            obj (bytes): The content.
            filepath (str | Path): Where.
        """
        atomic_write(filepath, obj)
        for outdated in [file for file in self._outdated if file.parent == Path(filepath).parent]:
            self._outdated.remove(outdated)
            if outdated != Path(filepath):
                outdated.unlink(missing_ok=True)

    def remove(self, filepath: Union[str, Path]) -> None:
        """Has a file removed as soon as the next one is there.

        Args:
            filepath (str | Path): Of a file.
        """
        self._outdated.append(Path(filepath))


def write_atomically(hook: CheckpointHook, folder: str) -> None:
    """Lets mmengine's checkpoint hook write files atomically, where it writes to this machine's disk by default.

    Args:
        hook (CheckpointHook): Of a runner.
        folder (str): Where it writes.
    """
    if hook.backend_args is None and hook.file_client_args is None and '://' not in folder:
        hook.backend_args = dict(backend=WHOLE_FILES)


def checkpoint_folder(hook: CheckpointHook, work_dir: str) -> str:
    """Where a checkpoint hook will write.

    Args:
        hook (CheckpointHook): Of a runner that does not train yet.
        work_dir (str): Of the runner.

    Returns:
        str: The folder.
    """
    out_dir = str(hook.out_dir or work_dir)
    return out_dir if out_dir == work_dir else osp.join(out_dir, osp.basename(work_dir.rstrip(osp.sep)))


def device_of(folder: str) -> int:
    """On which disk a folder is, or would be made.

    Args:
        folder (str): Need not exist.

    Returns:
        int: A number of the system's.
    """
    while not osp.exists(folder) and osp.dirname(folder) != folder:
        folder = osp.dirname(osp.abspath(folder))
    return Path(folder).stat().st_dev


def repair_last_checkpoint(work_dir: str, folder: str, template: str) -> None:
    """Lets ``last_checkpoint``, by which mmengine resumes, name a checkpoint that can be read.

    mmengine writes it after the checkpoint and not at once, so it is stale or empty where a training was killed then.
    What it names may also have been removed, or cut short, by whoever else.

    Args:
        work_dir (str): Where it is.
        folder (str): Where the checkpoints are.
        template (str): Of their names, as in ``CheckpointHook.filename_tmpl``.

    Raises:
        CheckpointError: There have been checkpoints, and none can be read.
    """
    note = Path(work_dir, 'last_checkpoint')
    named = note.read_text().strip() if note.is_file() else ''
    if '://' in named or osp.isdir(named) or _is_readable(named):
        return
    broken = 'which is cut short or broken' if osp.exists(named) else 'which is gone'
    problem = f'{note} names {named!r}, {broken}' if named else f'{note} names nothing'
    file = last_readable(folder, template)
    if file is not None:
        atomic_write(note, str(file))
        print_log(f'{problem}. Resuming from {file}, the last checkpoint that is complete.', logger='current',
                  level=logging.WARNING)
    elif note.is_file():
        raise CheckpointError(
            f'{problem}, and there is no other complete checkpoint in {folder}, so there is nothing to resume from. '
            f'Bring the file back from a copy; or name another one by --resume CHECKPOINT; or remove {note}, to begin '
            'anew.')


def last_readable(folder: str, template: str) -> Optional[Path]:
    """The newest complete checkpoint of a training.

    Args:
        folder (str): Where its checkpoints are; need not exist.
        template (str): Of their names, as in ``CheckpointHook.filename_tmpl``.

    Returns:
        Path: None where there is none.
    """
    return next((file for file in _newest_first(folder, template) if _is_readable(str(file))), None)


def _newest_first(folder: str, template: str) -> Iterator[Path]:
    """Checkpoints, but no other file whose name begins so."""
    for file in sorted(Path(folder).glob('*'), key=lambda file: file.stat().st_mtime_ns, reverse=True):
        if any(template.format(int(number)) == file.name for number in re.findall(r'\d+', file.name)):
            yield file


def _is_readable(file: str) -> bool:
    try:
        read_checkpoint_file(file)
        return _is_unharmed(file)
    except UntrustedCheckpointError:  # the user's own, who may have added to it
        return True
    except CheckpointError as error:
        # A disk that fails says nothing of the file; an older one would be resumed from in place of this.
        if isinstance(error.__cause__, OSError) and error.__cause__.errno:
            raise error.__cause__ from None
        return False
    except FileNotFoundError:
        return False


def _is_unharmed(file: str) -> bool:
    """Whether no part of a file was lost and became zeros; PyTorch, when it loads, compares no sums."""
    kept = getattr(torch.serialization, 'get_crc32_options', lambda: True)  # since PyTorch 2.6 they can be left out
    if not kept() or not zipfile.is_zipfile(file):
        return True
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except zipfile.BadZipFile:
        return False
