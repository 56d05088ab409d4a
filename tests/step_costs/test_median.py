"""Medians of noisy measurements."""
import random

import pytest

from mmfeatdistill.step_costs.median import Median, median_of


@pytest.mark.parametrize('count', [6, 10, 21, 100])
def test_the_interval_holds_the_true_median(count):
    draw = random.Random(0)
    intervals = [median_of(draw.lognormvariate(0, 1) for _ in range(count)) for _ in range(2000)]
    assert sum(found.low <= 1 <= found.high for found in intervals) / len(intervals) >= 0.95
    assert all(found.low <= found.value <= found.high for found in intervals)


def test_more_measurements_make_it_narrower_and_outliers_do_not_move_it():
    few, many = (median_of(1 + (i % 5) / 100 for i in range(count)) for count in (10, 400))
    assert many.error < few.error
    assert median_of([*[1.0] * 99, 1e6]).high == 1.0


def test_few_measurements_bound_it_by_their_extremes():
    assert median_of([3.0, 1.0, 2.0]) == Median(value=2.0, low=1.0, high=3.0)
    assert median_of([1.5]).error == 0
