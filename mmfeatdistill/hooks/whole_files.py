"""Checkpoints that are either whole or not there."""
from pathlib import Path
from typing import Union

from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook

from mmfeatdistill.files import remove_leftovers, write_whole

WHOLE_FILES = 'mmfeatdistill_whole_files'
"""Name of :class:`WholeFileBackend` in mmengine."""


@register_backend(WHOLE_FILES)
class WholeFileBackend(LocalBackend):
    """mmengine's local files, written at once (see :func:`mmfeatdistill.files.write_whole`)."""

    def put(self, obj: bytes, filepath: Union[str, Path]) -> None:
        """Writes bytes to a file.

        Args:
            obj (bytes): The content.
            filepath (str | Path): Where.
        """
        write_whole(filepath, obj)


def write_whole_files(hook: CheckpointHook, folder: str) -> None:
    """Lets mmengine's checkpoint hook write whole files, where it writes to this machine's disk by default.

    Args:
        hook (CheckpointHook): Of a runner.
        folder (str): Where it writes.
    """
    if hook.backend_args is None and hook.file_client_args is None and '://' not in folder:
        hook.backend_args = dict(backend=WHOLE_FILES)
        remove_leftovers(folder)
