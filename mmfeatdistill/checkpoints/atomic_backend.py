"""Checkpoints that are either complete or not there."""
import logging
import os.path as osp
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Union

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


def repair_last_checkpoint(work_dir: str, folder: str, template: str) -> None:
    """Lets ``last_checkpoint``, by which mmengine resumes, name a checkpoint that can be read.

    mmengine writes it after the checkpoint and not at once, so it is stale or empty where a training was killed then.

    Args:
        work_dir (str): Where it is.
        folder (str): Where the checkpoints are.
        template (str): Of their names, as in ``CheckpointHook.filename_tmpl``.
    """
    note = Path(work_dir, 'last_checkpoint')
    named = note.read_text().strip() if note.is_file() else ''
    if '://' in named or osp.isdir(named) or _is_readable(named):
        return
    for file in _newest_first(folder, template):
        if _is_readable(str(file)):
            atomic_write(note, str(file))
            print_log(f'{note} names {named or "nothing"!r}, which cannot be read. Resuming from {file}.',
                      logger='current', level=logging.WARNING)
            return


def _newest_first(folder: str, template: str) -> Iterator[Path]:
    """Checkpoints, but no other file whose name begins so."""
    for file in sorted(Path(folder).glob('*'), key=lambda file: file.stat().st_mtime_ns, reverse=True):
        if any(template.format(int(number)) == file.name for number in re.findall(r'\d+', file.name)):
            yield file


def _is_readable(file: str) -> bool:
    try:
        read_checkpoint_file(file)
    except UntrustedCheckpointError:  # the user's own, who may have added to it
        return True
    except (CheckpointError, FileNotFoundError):
        return False
    return True
