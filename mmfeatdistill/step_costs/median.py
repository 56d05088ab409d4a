"""What noisy measurements have in common."""
import math
from collections.abc import Iterable
from statistics import median
from typing import NamedTuple


class Median(NamedTuple):
    """A median, and how well it is known.

    Attributes:
        value (float): The median of what was measured.
        low (float): The true median is between this and ``high`` with a probability of 95 % or more.
        high (float): See ``low``.
    """

    value: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """How far the true median may be from ``value``."""
        return max(self.high - self.value, self.value - self.low)


def median_of(values: Iterable[float]) -> Median:
    """The median of independent measurements, however they are distributed.

    Each measurement lies below the true median with probability 1/2, so the interval between the ``k``-th smallest and
    the ``k``-th largest of ``n`` misses it with probability ``2 * sum_{i<k} C(n, i) / 2**n``; the largest ``k`` for
    which that is at most 5 % gives the interval (the sign test's, Conover, *Practical Nonparametric Statistics*,
    section 3.2). Fewer than six measurements cannot bound a median so well: then it reaches from the least to the
    greatest.

    Args:
        values (Iterable[float]): At least one.

    Returns:
        Median: With its interval.

    Examples:
        >>> median_of([1.0, 1.2, 1.1, 0.9, 1.0, 5.0, 1.1, 1.0])
        Median(value=1.05, low=0.9, high=5.0)
    """
    ordered = sorted(values)
    count, tail, outside = len(ordered), 0, 0
    while 2 * (tail + math.comb(count, outside)) <= 0.05 * 2**count:
        tail += math.comb(count, outside)
        outside += 1
    outside = max(outside - 1, 0)
    return Median(median(ordered), ordered[outside], ordered[-1 - outside])
