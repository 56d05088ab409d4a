"""mmcv's operators without compiling: what stands in for ``mmcv._ext`` where mmcv was installed without it."""
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

EXTENSION = 'mmcv._ext'
STAND_IN = Path(__file__).with_name('stand_in.py')


class StandInFinder:
    """Finds the stand-in for the one module, when nothing else has found it."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """What Python asks each finder.

        Args:
            name (str): Of the module that is imported.
            path (Sequence[str] | None): Where its package is.
            target (ModuleType | None): What is reloaded.

        Returns:
            ModuleSpec | None: None for every other module.

        Examples:
            >>> StandInFinder.find_spec('mmcv.ops') is None
            True
        """
        return spec_from_file_location(name, STAND_IN) if name == EXTENSION else None


def make_available() -> None:
    """Lets ``import mmcv.ops`` work where mmcv has no compiled operators; does nothing where it has.

    Nothing is imported before ``mmcv._ext`` is.

    Examples:
        >>> make_available()
        >>> from mmcv.ops import RoIAlign
    """
    # At the end, where a finder is asked only if none before it found the module: compiled operators come first.
    if StandInFinder not in sys.meta_path:
        sys.meta_path.append(StandInFinder)
