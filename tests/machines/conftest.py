"""What the tests of several machines need; all of them are left to ``make test-machines``."""
from pathlib import Path

import pytest

from tests.machines import hosts

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.machines)


@pytest.fixture(scope='session')
def two_hosts():
    if reason := hosts.missing():
        pytest.skip(reason)
    with hosts.Hosts(2) as pair:
        yield pair
