"""Jobs of two processes on CPUs, as users start them, and what is left of one in which a process dies."""
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmfeatdistill.engine.command_line import configure, run_arguments
from tests.helpers.runs import CONFIGS, DISTILLED

ROOT = CONFIGS.parent
SECONDS = 30
"""In which a job ends after one of its processes; it takes one or two."""


def job(config: Path, digits: Path, *options: str) -> tuple[int, str]:
    """Trains in two processes on CPUs; the exit code and the output."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    environment = os.environ | dict(
        PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}', PYTHONPATH=str(ROOT), PYTHONWARNINGS='ignore',
        OMP_NUM_THREADS='1', OMP_WAIT_POLICY='passive', PORT=str(port))
    command = [ROOT / 'tools' / 'dist_train.sh', config, '2', *options, '--cfg-options',
               'env_cfg.dist_cfg.backend=gloo', 'model.teacher.checkpoint=None', 'train_cfg.max_epochs=1',
               'train_dataloader.batch_size=4', 'log_level=WARNING']
    # The output ends when the last process that writes to it has: data workers, too, are gone then.
    done = subprocess.run([str(part) for part in command], cwd=digits, env=environment, text=True, timeout=300,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


@pytest.fixture
def dying(tmp_path):
    """Writes a config of a training in which a process dies."""
    def write(**how) -> Path:
        file = tmp_path / 'dying.py'
        file.write_text(
            f"_base_ = ['{CONFIGS / DISTILLED['classification']}']\n"
            "custom_imports = dict(imports=['tests.distributed.dying'], allow_failed_imports=False)\n"
            f"custom_hooks = [*_base_.custom_hooks, {dict(type='Dies', **how)}]\n")
        return file
    return write


@pytest.mark.slow
@pytest.mark.parametrize('rank, how, words', [
    (1, 'killed', 'SIGKILL'),
    (0, 'killed', 'SIGKILL'),
    (1, 'raises', 'RuntimeError: the hook of a test gave up')])
def test_a_dead_process_ends_the_job_with_its_name(digits, tmp_path, dying, rank, how, words):
    code, output = job(dying(rank=rank, how=how), digits, '--work-dir', tmp_path)
    assert code != 0
    assert time.time() - (tmp_path / 'died').stat().st_mtime < SECONDS
    assert re.search(rf'failed \(exitcode: -?\d+\) local_rank: {rank}\b', output), output[-3000:]
    cause = output.rpartition('Root Cause')[2]
    assert re.search(rf'rank\s*: {rank} ', cause) and words in cause, output[-3000:]
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.slow
def test_without_a_death_it_trains_validates_and_saves_once(digits, tmp_path):
    code, output = job(CONFIGS / DISTILLED['classification'], digits, '--work-dir', tmp_path)
    assert code == 0, output[-3000:]
    assert {file.name for file in tmp_path.glob('*.pth')} == {'epoch_1.pth', 'best_accuracy_top1_epoch_1.pth'}
    assert len(list(tmp_path.glob('*/*.log'))) == 1, 'one process writes'


@pytest.mark.parametrize('launcher, backend', [('pytorch', 'nccl'), ('slurm', 'nccl'), ('mpi', 'gloo')])
def test_a_job_that_needs_gpus_where_there_are_none_says_what_to_do(launcher, backend, monkeypatch):
    monkeypatch.setattr('mmfeatdistill.engine.command_line.get_device', lambda: 'cpu')
    args = run_arguments('').parse_args([str(CONFIGS / DISTILLED['classification']), '--launcher', launcher,
                                         '--cfg-options', f'env_cfg.dist_cfg.backend={backend}'])
    with pytest.raises(ValueError, match=rf'--launcher {launcher}: each process .* gets a GPU, and none is visible here'
                                         r'.* env_cfg\.dist_cfg\.backend=gloo$'):
        configure(args)
