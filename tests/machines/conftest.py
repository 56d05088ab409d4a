"""What the tests of several machines need; all of them are left to ``make test-machines``."""
import os
import sys
from pathlib import Path

import pytest

from tests.machines import hosts, restarts

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


@pytest.fixture(scope='session')
def preloaded(tmp_path_factory) -> dict[str, str]:
    """The environment in which torchrun has imported the libraries, and can fork processes that need not."""
    folder = tmp_path_factory.mktemp('bin')
    script = HERE / 'preloaded_torchrun.py'
    (folder / 'torchrun').write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    (folder / 'torchrun').chmod(0o755)
    return dict(PATH=f'{folder}:{os.environ["PATH"]}')


@pytest.fixture(scope='session')
def straight(digits, tmp_path_factory, preloaded):
    """The folder of a training to which nothing happens."""
    folder = tmp_path_factory.mktemp('straight')
    with hosts.Hosts(1) as [host]:
        job = restarts.start_two(host, digits, folder, 0, TORCHRUN_ARGS=restarts.FORKED, **preloaded)
        assert job.wait(restarts.PATIENCE) == 0, job.output[-3000:]
    return folder
