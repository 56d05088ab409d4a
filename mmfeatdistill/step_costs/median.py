"""What noisy measurements have in common."""
import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from scipy.stats import quantile_test


@dataclass(frozen=True)
class Median:
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

    The interval is that of the sign test (Conover, *Practical Nonparametric Statistics*, section 3.2). Fewer than six
    measurements cannot bound a median so well: then it reaches from the least to the greatest.

    Args:
        values (Iterable[float]): At least one.

    Returns:
        Median: With its interval.

    Examples:
        >>> median_of([1.0, 1.2, 1.1, 0.9, 1.0, 5.0, 1.1, 1.0])
        Median(value=1.05, low=0.9, high=5.0)
    """
    values = list(values)
    interval = quantile_test(values, p=0.5).confidence_interval(0.95)
    low, high = (min(values), max(values)) if math.isnan(interval.low + interval.high) else interval
    return Median(median(values), float(low), float(high))
