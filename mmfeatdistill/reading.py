"""What one pass of one network gave."""
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from torch import Tensor, nn

from mmfeatdistill.taps import Features, TapReader


@dataclass(frozen=True)
class Reading:
    """The tapped features of a pass, and what they were read from.

    An objective that only compares features needs ``reading[tap]``. One that runs a later part of the network itself,
    or looks at the labels, finds the network and the batch here; it keeps neither.

    Attributes:
        features (dict[str, list[Tensor]]): The tensors that each tap gave.
        reader (TapReader): What read them; it can read other passes of the same network.
        inputs (Tensor): The batch as this network saw it, shape (N, C, H, W).
        data_samples (Sequence, optional): Its data samples, with the labels.
    """

    features: Features
    reader: TapReader
    inputs: Tensor
    data_samples: Optional[Sequence[Any]] = None

    @property
    def model(self) -> nn.Module:
        """The network that ran."""
        return self.reader.model

    def __getitem__(self, tap: str) -> list[Tensor]:
        """The tensors that a tap gave."""
        return self.features[tap]
