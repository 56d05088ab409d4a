"""Checkpoints that are either whole or not there."""
import os
from pathlib import Path
from typing import Union

from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook

WHOLE_FILES = 'mmfeatdistill_whole_files'
"""Name of :class:`WholeFileBackend` in mmengine."""


@register_backend(WHOLE_FILES)
class WholeFileBackend(LocalBackend):
    """mmengine's local files, written beside their place and moved there when they are complete."""

    def put(self, obj: bytes, filepath: Union[str, Path]) -> None:
        """Writes bytes to a file at once.

        Args:
            obj (bytes): The content.
            filepath (str | Path): Where; a killed process leaves nothing half-written there.
        """
        target = Path(filepath)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f'.{target.name}.{os.getpid()}.tmp')
        try:
            with open(temporary, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def write_whole_files(hook: CheckpointHook, folder: str) -> None:
    """Lets mmengine's checkpoint hook write whole files, where it writes to this machine's disk by default.

    Args:
        hook (CheckpointHook): Of a runner.
        folder (str): Where it writes.
    """
    if hook.backend_args is None and hook.file_client_args is None and '://' not in folder:
        hook.backend_args = dict(backend=WHOLE_FILES)
