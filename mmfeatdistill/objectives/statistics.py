"""Objectives that must see the teachers' features of training images before the first iteration."""
from abc import abstractmethod
from collections.abc import Sequence

from torch import nn

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.taps.reader import TappedPass


class NeedsStatistics:
    """A mixin for objectives, or modules in them, that rest on statistics of the teachers' features.

    :class:`mmfeatdistill.engine.hooks.StatisticsHook` shows them training images before the first iteration: each batch
    goes to :meth:`update_statistics`, and :meth:`finish_statistics` ends the pass. What was found goes into buffers, so
    it is saved, and a resumed training does not repeat the pass.
    """

    _statistics_are_known = False

    @property
    @abstractmethod
    def images_wanted(self) -> float:
        """How many training images are still to be seen: 0 for none, ``math.inf`` for all."""

    @abstractmethod
    def update_statistics(self, teachers: Sequence[TappedPass]) -> None:
        """Sees a batch of training images.

        Args:
            teachers (Sequence[TappedPass]): The pass of each teacher that is read, without gradient.
        """

    @abstractmethod
    def finish_statistics(self) -> None:
        """Ends the pass, in all processes at once."""

    def check_statistics(self, message: str) -> None:
        """Asks once whether statistics are known, as the answer lies on the device.

        Args:
            message (str): What to say otherwise.

        Raises:
            ConfigError: Statistics are needed and no images were seen.
        """
        if not self._statistics_are_known and self.images_wanted:
            raise ConfigError(message)
        self._statistics_are_known = True


def needing_statistics(objective: nn.Module) -> list[NeedsStatistics]:
    """What of an objective rests on statistics: itself, or modules in it.

    Args:
        objective (nn.Module): The objective.

    Returns:
        list[NeedsStatistics]: All of them see the same images, as many as one of them wants.
    """
    return [module for module in objective.modules() if isinstance(module, NeedsStatistics)]
