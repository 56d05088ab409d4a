"""``torchrun --max-restarts``: a process is killed at any moment, and the training goes on by itself."""
import random
import time
from functools import partial

import pytest

from mmfeatdistill.checkpoints.safe_load import read_checkpoint_file
from tests.machines import hosts
from tests.machines.hosts import Hosts, wait_until
from tests.machines.trainings import start, write_config
from tests.test_crashes import check_equal

KILLS, EPOCHS = 10, 24
EPOCH = 8
"""Iterations of an epoch, after which a checkpoint is written."""

if hosts.missing():
    pytest.skip(hosts.missing(), allow_module_level=True)


def diary(folder, rank):
    """What a process wrote: its number in the system, what happened, and when."""
    lines = (folder / f'diary_{rank}').read_text().splitlines() if (folder / f'diary_{rank}').exists() else []
    return [(int(pid), what, int(number)) for _, pid, what, number in map(str.split, lines)]


def has_started(folder, times):
    return all(sum(what == 'start' for _, what, _ in diary(folder, rank)) == times for rank in range(2))


def test_ten_kills_lose_and_repeat_no_iteration(digits, tmp_path):
    rng = random.Random(0)
    folder, straight = tmp_path / 'killed', tmp_path / 'straight'
    moments = []
    with Hosts(1) as [host]:
        for place, pause in ((folder, 0.1), (straight, 0)):
            place.mkdir()
            job = start(host, digits, place / 'output.log', write_config(place, pause), place, '--resume',
                        f'--cfg-options=train_cfg.max_epochs={EPOCHS}', processes=2, PORT='29513',
                        TORCHRUN_ARGS=f'--max-restarts={KILLS} --monitor-interval=0.2')
            for kill in range(KILLS if place is folder else 0):
                wait_until(partial(has_started, folder, kill + 1), job)
                time.sleep(rng.uniform(0, 4))
                rank = rng.randrange(2)
                process, *what = diary(folder, rank)[-1]
                host.run('kill', '-KILL', process)
                moments.append((rank, *what))
            assert job.wait(600) == 0, job.output[-3000:]
    print(f'killed: {moments}')
    for rank in range(2):
        position, ran = 0, []
        for _, what, number in diary(folder, rank):
            if what == 'start':
                assert number % EPOCH == 0 and 0 <= position - number <= EPOCH, 'from the last checkpoint'
                ran = ran[:number]
            elif what == 'iteration':
                ran.append(number)
            position = number
        assert ran == list(range(1, EPOCHS * EPOCH + 1))
    first, second = (read_checkpoint_file(str(place / f'epoch_{EPOCHS}.pth')) for place in (straight, folder))
    for part in ('state_dict', 'distiller', 'optimizer', 'param_schedulers'):
        check_equal(first[part], second[part], part)
