"""Every method, and what is estimated from images, on two hosts: as tests/distributed finds it in two processes."""
from functools import partial

import pytest

from tests.distributed import conftest, test_methods, test_statistics
from tests.distributed.methods import OTHERS, WITH_EVERY_PART
from tests.distributed.steps import of_a_rank
from tests.distributed.trainings import resumed_once
from tests.machines.pair import PairOfHosts

teacher_weights = conftest.teacher_weights
alone = test_statistics.alone
for module in (test_methods, test_statistics):
    globals().update({name: value for name, value in vars(module).items() if name.startswith('test_')})

ALL = [*WITH_EVERY_PART, *OTHERS]


@pytest.fixture(scope='module')
def pair(digits, teacher_weights, tmp_path_factory, two_hosts):
    folder = tmp_path_factory.mktemp('hosts')
    training = partial(resumed_once, digits, teacher_weights, folder / 'training')
    return PairOfHosts({'training': training} | {path: partial(of_a_rank, path) for path in ALL}, folder / 'work',
                       two_hosts)


@pytest.fixture(scope='module')
def two(pair):
    return pair.results('training')


@pytest.fixture(scope='module', params=ALL)
def method(request, pair):
    return test_methods.alone(request.param), pair.results(request.param)


def test_it_went_over_the_network(pair, two_hosts):
    pair.results(ALL[-1])
    assert all(host.sent() > 10_000_000 for host in two_hosts)
