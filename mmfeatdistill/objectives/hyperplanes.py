"""Random hyperplanes, and where the features of training images place them."""
from collections.abc import Sequence
from typing import Literal, Union

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, all_reduce
from torch import Tensor, nn

from mmfeatdistill.losses import lsh_bias

Offsets = Literal['median', 'mean', 'zero']

POSITIONS = 32
"""Positions of each map that enter a median."""

_MAX_GATHERED = 2**24
"""Projections that are gathered from all processes at once: 64 MiB."""


class Hyperplanes(nn.Module):
    """The hyperplanes that hash one feature: frozen directions, and offsets that may have to be found first.

    Args:
        weight (Tensor): Their directions, shape (M, D).
        offsets (str): What they are placed at: the ``'median'`` or ``'mean'`` of the projections of features that are
            seen, or ``'zero'``, which needs none.

    Attributes:
        weight (Tensor): The directions that were given.
        bias (Tensor): Offsets of shape (M,): minus the median or mean; 0 until they are known.
        is_known (Tensor): Whether they are, a boolean scalar.

    Examples:
        >>> planes = Hyperplanes(torch.eye(2), 'mean')
        >>> planes.update(torch.tensor([[[1.0, 5.0], [3.0, 5.0]]]))
        >>> planes.finish()
        >>> planes.bias
        tensor([-2., -5.])
    """

    weight: Tensor
    bias: Tensor
    is_known: Tensor

    def __init__(self, weight: Tensor, offsets: Offsets) -> None:
        super().__init__()
        self.register_buffer('weight', weight)
        self.register_buffer('bias', weight.new_zeros(len(weight)))
        self.register_buffer('is_known', torch.tensor(offsets == 'zero'))
        width = weight.shape[1]
        self._statistic: Union[_Mean, _Median, None] = (
            None if offsets == 'zero' else _Mean(width) if offsets == 'mean' else _Median(width))

    def update(self, samples: Tensor) -> None:
        """Adds features to the statistic.

        Args:
            samples (Tensor): Shape (N, P, D): of N images, P positions each.
        """
        assert self._statistic is not None, 'only offsets that are not known are found'
        self._statistic.update(samples)

    def finish(self) -> None:
        """Places the hyperplanes at the statistic of all processes."""
        assert self._statistic is not None, 'only offsets that are not known are found'
        self.bias.copy_(self._statistic.offsets(self.weight))
        self.is_known.fill_(True)
        self._statistic = None  # its samples are not needed any more


class _Mean:
    """The mean of features: that of their projections is its projection."""

    def __init__(self, width: int) -> None:
        self._sum_and_count = torch.zeros(width + 1, dtype=torch.float64)

    def update(self, samples: Tensor) -> None:
        """Adds samples of shape (N, P, D)."""
        samples = samples.flatten(0, 1)
        self._sum_and_count[:-1] += samples.sum(0, dtype=torch.float64).cpu()
        self._sum_and_count[-1] += len(samples)

    def offsets(self, weight: Tensor) -> Tensor:
        all_reduce(self._sum_and_count)
        mean = self._sum_and_count[:-1] / self._sum_and_count[-1]
        return lsh_bias(F.linear(mean[None].to(weight.device), weight.double()), kind='mean')


class _Median:
    """The medians of the projections, from the features themselves, which are narrower."""

    def __init__(self, width: int) -> None:
        self._samples = [torch.empty(0, width)]
        self._generator = torch.Generator().manual_seed(0)

    def update(self, samples: Tensor) -> None:
        """Keeps samples of shape (N, P, D), of each image some positions."""
        images, positions, _ = samples.shape
        chosen = torch.rand(images, positions, generator=self._generator).topk(min(positions, POSITIONS)).indices
        self._samples.append(samples[torch.arange(images)[:, None], chosen].flatten(0, 1).float().cpu())

    def offsets(self, weight: Tensor) -> Tensor:
        samples = torch.cat(self._samples).to(weight.device)
        counts = [int(count) for count in all_gather(torch.tensor(len(samples), device=weight.device))]
        parts = weight.split(max(1, _MAX_GATHERED // max(sum(counts), 1)))
        return torch.cat([lsh_bias(_gather(F.linear(samples, part), counts), kind='median') for part in parts])


def _gather(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """The rows of all processes, of which each has another number."""
    padded = F.pad(rows, (0, 0, 0, max(counts) - len(rows)))
    return torch.cat([part[:count] for part, count in zip(all_gather(padded), counts)])
