"""``torchrun --max-restarts``: a process is killed at any moment, and the training goes on by itself."""
import random
import time
from functools import partial

import pytest

from tests.machines import hosts
from tests.machines.hosts import Hosts, wait_until
from tests.machines.restarts import FORKED, PATIENCE, Diary, check_restarts, start_two

KILLS = 10
AIMS = ('while it is built', 'while it trains')

if hosts.missing():
    pytest.skip(hosts.missing(), allow_module_level=True)


def have_noted(folder, time, notes) -> bool:
    """Whether both processes have noted so much, the time that they were started for which this is the number."""
    return all(Diary(folder, rank).has(time, notes) for rank in range(2))


def kill_some(host, folder, job, kills, rng) -> list[tuple[str, int, int]]:
    """Kills one process after the other; the aim, the process, and the last iteration that it had noted."""
    moments = []
    for number in range(kills):
        aim, rank = AIMS[rng.random() > 0.3], rng.randrange(2)
        notes = 1 if aim == AIMS[0] else rng.randint(2, 6)  # built, started, and up to four iterations
        wait_until(partial(have_noted, folder, number, notes), job, PATIENCE)
        time.sleep(rng.uniform(0, 0.3))
        process, _, iteration = Diary(folder, rank).times()[-1][-1]
        host.run('kill', '-KILL', process)
        moments.append((aim, rank, iteration))
    return moments


def test_ten_kills_lose_and_repeat_no_iteration(digits, tmp_path, straight, preloaded):
    with Hosts(1) as [host]:
        job = start_two(host, digits, tmp_path, 0.1, TORCHRUN_ARGS=f'{FORKED} --max-restarts={KILLS}', **preloaded)
        moments = kill_some(host, tmp_path, job, KILLS, random.Random(0))
        assert job.wait(PATIENCE) == 0, job.output[-3000:]
    print(f'killed: {moments}')
    check_restarts(tmp_path, straight, KILLS)


def test_the_command_of_the_documentation_goes_on_after_a_kill(digits, tmp_path, straight):
    """Without what makes restarts fast."""
    with Hosts(1) as [host]:
        job = start_two(host, digits, tmp_path, 0.1, TORCHRUN_ARGS='--max-restarts=2')
        wait_until(partial(have_noted, tmp_path, 0, 5), job, PATIENCE)
        host.run('kill', '-KILL', Diary(tmp_path, 1).times()[0][-1][0])
        assert job.wait(PATIENCE) == 0, job.output[-3000:]
    check_restarts(tmp_path, straight, 1)
