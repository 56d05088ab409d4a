"""``tools/dist_train.sh`` on two hosts whose network fails, or of which one goes down."""
import re
import shutil
import time

import pytest

from mmfeatdistill.checkpoints.safe_load import read_checkpoint_file
from tests.machines import hosts
from tests.machines.hosts import Hosts, wait_until
from tests.machines.trainings import ITERATIONS, check_same, iterations, start, start_on, write_config

EPOCH = ITERATIONS // 2
ENDS_WITHIN = 60
"""Seconds after the time that a process waits for the others; torchrun takes a part of them."""

if hosts.missing():
    pytest.skip(hosts.missing(), allow_module_level=True)


@pytest.fixture(scope='module')
def straight(digits, tmp_path_factory):
    """The folder of a training to which nothing happens."""
    folder = tmp_path_factory.mktemp('straight')
    with Hosts(2) as pair:
        for job in start_on(pair, digits, write_config(folder, 0), folder):
            assert job.wait() == 0, job.output[-3000:]
    return folder


@pytest.fixture(scope='module')
def interrupted(digits, tmp_path_factory):
    """A training whose network was down for 20 s in its first epoch, and that lost a host in its second.

    It gives the folder, the output on the host that was left, and the seconds that this one went on.
    """
    folder = tmp_path_factory.mktemp('interrupted')
    with Hosts(2) as pair:
        jobs = start_on(pair, digits, write_config(folder, 1), folder, timeout=60)
        wait_until(lambda: 3 in iterations(folder), jobs[0])
        pair[1].pull_cable()
        time.sleep(20)
        while_down = iterations(folder)
        pair[1].plug_cable()
        wait_until(lambda: EPOCH + 2 in iterations(folder), jobs[0])
        assert while_down[-1] < EPOCH
        pair[1].power_off()
        lost = time.monotonic()
        assert jobs[0].wait() != 0
        return folder, jobs[0].output, time.monotonic() - lost


def test_a_network_that_is_down_for_less_than_the_timeout_changes_nothing(straight, interrupted):
    check_same(straight, interrupted[0], 'epoch_1.pth')
    assert iterations(interrupted[0])[:EPOCH] == list(range(1, EPOCH + 1))


def test_a_host_that_is_lost_ends_the_job_with_its_name(interrupted):
    folder, output, seconds = interrupted
    assert seconds < ENDS_WITHIN
    cause = output.rpartition('Root Cause')[2]
    assert 'process 0 of 2 (on host1) has lost process 1 (on host2): killed, or its host or network is down' in cause
    assert {file.name for file in folder.glob('*.pth')} == {'epoch_1.pth'}, 'and leaves the last checkpoint'


def test_the_job_resumes_on_two_hosts_as_if_it_had_never_ended(straight, interrupted, digits, tmp_path):
    folder = shutil.copytree(interrupted[0], tmp_path / 'again')
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
    with Hosts(2) as pair:
        for job in start_on(pair, digits, write_config(folder, 0), folder, '--resume'):
            assert job.wait() == 0, job.output[-3000:]
    check_same(straight, folder, 'epoch_2.pth')
    assert iterations(folder)[-EPOCH:] == list(range(EPOCH + 1, ITERATIONS + 1))


def test_the_job_resumes_on_one_host_and_says_what_is_exact(interrupted, digits, tmp_path):
    folder = shutil.copytree(interrupted[0], tmp_path / 'again')
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
    with Hosts(1) as [host]:
        job = start(host, digits, folder / 'one.log', write_config(folder, 0, images=4), folder, '--resume')
        assert job.wait() == 0, job.output[-3000:]
    assert re.search(r'Resumed by 1 process, and saved by 2: weights, .*\(now 1 x 4\)', job.output)
    assert iterations(folder)[-EPOCH:] == list(range(EPOCH + 1, ITERATIONS + 1))
    assert read_checkpoint_file(str(folder / 'epoch_2.pth'))['meta']['iter'] == ITERATIONS


def test_a_network_that_is_down_for_longer_ends_the_job_on_both_hosts(digits, tmp_path):
    with Hosts(2) as pair:
        jobs = start_on(pair, digits, write_config(tmp_path, 1), tmp_path, timeout=8)
        wait_until(lambda: EPOCH + 2 in iterations(tmp_path), jobs[0])
        pair[1].pull_cable()
        lost = time.monotonic()
        assert all(job.wait() != 0 for job in jobs) and time.monotonic() - lost < 8 + ENDS_WITHIN
    causes = [job.output.rpartition('Root Cause')[2] for job in jobs]
    assert 'process 0 of 2 (on host1) has lost process 1 (on host2)' in causes[0]
    assert 'process 1 of 2 (on host2) has lost process 0 (on host1): over which the processes find' in causes[1]
    assert {file.name for file in tmp_path.glob('*.pth')} == {'epoch_1.pth'}
