"""Trainings that are killed, or whose disk is full, while they write checkpoints."""
import builtins
import operator
import os
import random
import resource
import time
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.device import is_cuda_available
from mmengine.hooks import CheckpointHook, Hook, checkpoint_hook
from mmengine.runner import Runner

from mmfeatdistill.checkpoints.atomic_backend import repair_last_checkpoint
from mmfeatdistill.checkpoints.safe_load import read_checkpoint_file
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.experiments.child_process import Child
from tests.helpers.runs import DISTILLED, small, train

ROUNDS, ITERATIONS = 20, 60
AIMS = ('anywhere', 'in the write', 'before the note', 'before the removal')
PAUSE = 0.2  # seconds that an operation takes which is aimed at

pytestmark = pytest.mark.skipif(is_cuda_available(), reason='a process that has looked for a GPU cannot be forked')


class Report(Hook):
    """Tells the parent where the training starts and what has been saved."""

    priority = 'LOWEST'

    def __init__(self, send) -> None:
        self.send, self.started = send, False

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if not self.started:
            self.started = True
            self.send(('started', runner.iter))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.send(('saved', runner.iter + 1))


def config(work_dir):
    """A checkpoint after every iteration, of which one is kept; a best one after every second."""
    cfg = small(DISTILLED['classification'], work_dir, train_dataloader__num_workers=0, val_dataloader__num_workers=0,
                train_dataloader__batch_size=4)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=ITERATIONS, val_interval=2)
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    cfg.train_dataloader.dataset.pipeline.insert(1, dict(type='RandomCrop', crop_size=64, padding=8))
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=1, max_keep_ckpts=1,
                                        save_best='accuracy/top1', rule='greater')
    cfg.default_hooks.logger.log_metric_by_epoch = False
    cfg.log_processor.by_epoch = False
    cfg.param_scheduler = [dict(type='PolyLR', by_epoch=False, begin=0, end=ITERATIONS)]
    cfg.custom_hooks.append(dict(type='EMAHook', momentum=0.1))
    cfg.resume = True
    return cfg


def training(work_dir, slow, send):
    """Runs in a process of its own; one of its operations on files takes longer."""
    CheckpointHook.rule_map = dict(greater=operator.ge)  # a best one often

    def slowly(operation, *args, **kwargs):
        time.sleep(PAUSE)
        return operation(*args, **kwargs)

    if slow == 'in the write':
        os.fsync = partial(slowly, os.fsync)
    if slow == 'before the removal':
        unlink = Path.unlink
        Path.unlink = lambda *args, **kwargs: slowly(unlink, *args, **kwargs)
    if slow == 'before the note':
        checkpoint_hook.open = open_slowly
    runner = Runner.from_cfg(config(work_dir))
    runner.register_hook(Report(send))
    runner.train()


def open_slowly(*args, **kwargs):
    """The file is empty already, and is written in a moment."""
    file = builtins.open(*args, **kwargs)
    time.sleep(PAUSE)
    return file


def state(folder):
    """What can be seen of an operation that is under way."""
    names = os.listdir(folder)
    note = folder / 'last_checkpoint'
    if any(name.endswith('.tmp') for name in names):
        return 'in the write'
    if note.exists() and not note.read_text():
        return 'before the note'
    if sum(name.startswith('iter_') for name in names) > 1:
        return 'before the removal'
    return 'anywhere'


def check_equal(first, second, key=''):
    assert type(first) is type(second), key
    if isinstance(first, Mapping):
        assert first.keys() == second.keys(), key
        for name in first:
            check_equal(first[name], second[name], f'{key}.{name}')
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), key
        for index, (a, b) in enumerate(zip(first, second)):
            check_equal(a, b, f'{key}.{index}')
    else:
        assert torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second, key


def wait_until_started(child):
    message = child.receive()
    assert message and message[0] == 'started', child.last_lines()
    return message[1]


@pytest.mark.slow
def test_a_training_that_is_killed_at_any_moment_ends_as_if_it_had_not_been(in_digits, tmp_path, record_property):
    folder, moments, rng = tmp_path / 'killed', Counter(), random.Random(0)
    saved = 0
    for number in range(ROUNDS):
        aim = AIMS[number % len(AIMS)]
        child = Child(partial(training, folder, aim), str(tmp_path / f'console_{number}'))
        started = wait_until_started(child)
        assert started >= saved, 'what had been saved is not lost'
        assert not list(folder.glob('.*')), 'and what was half-written is gone'
        time.sleep(rng.uniform(0, 0.5))
        end = time.monotonic() + 60
        while aim != 'anywhere' and state(folder) != aim:
            assert time.monotonic() < end, f'{aim}: never seen'
        time.sleep(rng.uniform(0, PAUSE / 4) if aim != 'anywhere' else 0)
        child.kill()
        assert child.join() == -9, child.last_lines()
        while message := child.receive():
            saved = message[1] if message[0] == 'saved' else saved
        moments[state(folder)] += 1

        files = list(folder.glob('*.pth'))
        iterations = [read_checkpoint_file(str(file))['meta']['iter'] for file in files if 'best' not in file.name]
        assert max(iterations, default=0) >= saved
    record_property('killed', dict(moments))
    print(f'killed: {dict(moments)}, after {saved} iterations')
    assert all(moments[aim] >= 3 for aim in AIMS[1:]), moments

    for name in ('killed', 'straight'):
        child = Child(partial(training, tmp_path / name, None), str(tmp_path / f'console_{name}'))
        wait_until_started(child)
        while child.receive():
            pass
        assert child.join() == 0, child.last_lines()
        assert not list((tmp_path / name).glob('.*')), 'no temporary file'
    killed, straight = (read_checkpoint_file(str(tmp_path / name / f'iter_{ITERATIONS}.pth'))
                        for name in ('killed', 'straight'))
    for part in ('state_dict', 'ema_state_dict', 'distiller', 'optimizer', 'param_schedulers'):
        check_equal(straight[part], killed[part], part)


# --- a full disk -----------------------------------------------------------------------------


class FillDisk(Hook):
    """After the first epoch, this process can write no file as large as a checkpoint."""

    def after_train_epoch(self, runner):
        if runner.epoch == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))


def training_on_a_full_disk(work_dir, send):
    cfg = small(DISTILLED['classification'], work_dir, train_dataloader__num_workers=0, val_dataloader__num_workers=0,
                train_dataloader__num_batch_per_epoch=1)
    cfg.default_hooks.checkpoint.update(max_keep_ckpts=1, save_best=None)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(FillDisk(), priority='LOWEST')
    runner.train()


def test_a_full_disk_leaves_the_last_checkpoint_and_is_named(in_digits, tmp_path):
    folder = tmp_path / 'work_dir'
    child = Child(partial(training_on_a_full_disk, folder), str(tmp_path / 'console'))
    assert child.receive() is None and child.join() == 1
    console = child.last_lines(5)
    [said] = [line for line in console.splitlines() if 'DiskFaultError: ' in line]
    assert f'{folder / "epoch_2.pth"} cannot be written: the file is larger than a file may be there (File too' in said
    assert f'{folder / "epoch_1.pth"} is complete' in said and 'start the same command with --resume' in said
    assert [file.name for file in folder.glob('*.pth')] == ['epoch_1.pth']
    assert read_checkpoint_file(str(folder / 'epoch_1.pth'))['meta']['epoch'] == 1
    assert (folder / 'last_checkpoint').read_text() == str(folder / 'epoch_1.pth') and not list(folder.glob('.*'))


# --- what is resumed -------------------------------------------------------------------------


def save(folder, *names):
    """Checkpoints in this order in time."""
    for age, name in enumerate(reversed(names)):
        torch.save(dict(state_dict=dict(weight=torch.ones(100))), folder / name)
        os.utime(folder / name, (1e9 - age, 1e9 - age))


def spoil(file):
    file.write_bytes(file.read_bytes()[:300])


@pytest.mark.parametrize('note', ['', 'gone/iter_3.pth', '{folder}/iter_8.pth', None])
def test_the_last_whole_checkpoint_is_resumed(tmp_path, note):
    """The newest is not the one with the highest number, which may be of a training before."""
    save(tmp_path, 'iter_9.pth', 'iter_2.pth', 'iter_3.pth', 'iter_3-0123abcd.pth', 'best_m_iter_3.pth', 'iter_8.pth')
    spoil(tmp_path / 'iter_8.pth')
    if note is not None:
        (tmp_path / 'last_checkpoint').write_text(note.format(folder=tmp_path))
    repair_last_checkpoint(str(tmp_path), str(tmp_path), 'iter_{}.pth')
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_3.pth')


def test_the_checkpoint_that_was_noted_is_left_alone(tmp_path):
    save(tmp_path, 'mine.pth', 'iter_2.pth')
    torch.save(dict(user=Fraction(1, 2)), tmp_path / 'user.pth')
    for named in (str(tmp_path / 'mine.pth'), str(tmp_path / 'user.pth'), str(tmp_path), 's3://bucket/iter_1.pth'):
        (tmp_path / 'last_checkpoint').write_text(named)
        repair_last_checkpoint(str(tmp_path), str(tmp_path), 'iter_{}.pth')
        assert (tmp_path / 'last_checkpoint').read_text() == named


def test_nothing_to_resume_is_left_to_mmengine(tmp_path):
    repair_last_checkpoint(str(tmp_path), str(tmp_path), 'iter_{}.pth')
    assert not list(tmp_path.iterdir())


def test_files_of_another_folder_are_cleaned_and_resumed(in_digits, tmp_path):
    """With ``out_dir`` checkpoints are not in the work directory."""
    def cfg(epochs, **options):
        return small(DISTILLED['classification'], tmp_path / 'run', train_dataloader__num_batch_per_epoch=1,
                     train_cfg__max_epochs=epochs, train_dataloader__num_workers=0, val_dataloader__num_workers=0,
                     default_hooks__checkpoint__out_dir=str(tmp_path / 'out'), **options)

    train(cfg(1))
    folder = tmp_path / 'out' / 'run'
    (folder / '.epoch_2.pth.123.tmp').touch()
    (tmp_path / 'run' / 'last_checkpoint').write_text('')
    Runner.from_cfg(cfg(1)).test()
    assert (folder / '.epoch_2.pth.123.tmp').exists(), 'another process may be writing it'
    resumed = train(cfg(2, resume=True))
    assert resumed.epoch == 2 and sorted(file.name for file in folder.glob('*') if 'best' not in file.name) == [
        'epoch_1.pth', 'epoch_2.pth']


def test_load_from_is_refused_before_mmengine_reads_it(in_digits, tmp_path):
    torch.save(dict(state_dict={}, meta=Touch(tmp_path / 'marker')), tmp_path / 'a.pth')

    def start(**hook):
        cfg = small(DISTILLED['classification'], tmp_path / 'run', load_from=str(tmp_path / 'a.pth'))
        cfg.custom_hooks[0].update(hook)
        Runner.from_cfg(cfg).call_hook('before_run')

    with pytest.raises(ConfigError, match='^load_from: .*a.pth.* holds more than weights .*StudentCheckpointHook'):
        start()
    start(weights_only=False)
    assert not (tmp_path / 'marker').exists()


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')
