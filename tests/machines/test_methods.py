"""Every method, and what is estimated from images, on two hosts: as tests/distributed finds it in two processes."""
from functools import partial

import pytest

from tests.distributed.conftest import teacher_weights  # noqa: F401
from tests.distributed.methods import OTHERS, WITH_EVERY_PART
from tests.distributed.steps import of_a_rank
from tests.distributed.test_methods import (  # noqa: F401
    alone as alone_with,
)
from tests.distributed.test_statistics import (  # noqa: F401
    alone,
    test_a_resumed_training_has_them_in_both_processes,
    test_both_processes_train_the_same_weights,
    test_hashes_are_drawn_alike_whatever_the_seed_of_a_process,
    test_offsets_and_margins_are_those_of_one_process,
)
from tests.distributed.trainings import resumed_once
from tests.machines.pair import PairOfHosts

ALL = [*WITH_EVERY_PART, *OTHERS]


@pytest.fixture(scope='module')
def pair(digits, teacher_weights, tmp_path_factory, two_hosts):  # noqa: F811
    folder = tmp_path_factory.mktemp('hosts')
    training = partial(resumed_once, digits, teacher_weights, folder / 'training')
    return PairOfHosts({'training': training} | {path: partial(of_a_rank, path) for path in ALL}, folder / 'work',
                       two_hosts)


@pytest.fixture(scope='module')
def two(pair):
    return pair.results('training')


@pytest.fixture(scope='module', params=ALL)
def method(request, pair):
    return alone_with(request.param), pair.results(request.param)


def test_it_went_over_the_network(pair, two_hosts):
    pair.results(ALL[-1])
    assert all(host.sent() > 10_000_000 for host in two_hosts)
