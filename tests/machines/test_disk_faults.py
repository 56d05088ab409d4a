"""``tools/train.py`` on a disk that fails: one message, nothing lost, and it ends as if nothing had happened."""
import errno
import os
import re
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
from mmengine.device import is_cuda_available

from mmfeatdistill.checkpoints import safe_load
from mmfeatdistill.checkpoints.safe_load import read_checkpoint_file
from mmfeatdistill.experiments.child_process import Child
from tests.conftest import load_script
from tests.helpers.runs import CONFIGS, DISTILLED
from tests.machines import faults
from tests.machines.faults import AFTER_TWO_EPOCHS, AT_THE_START, WHILE_TRAINING
from tests.test_crashes import check_equal

EPOCHS, PARTS = 3, ('state_dict', 'distiller', 'optimizer', 'param_schedulers')
GO_ON = 'start the same command with --resume: it goes on after that checkpoint.'

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason='only root can mount'),
    pytest.mark.skipif(is_cuda_available(), reason='a process that has looked for a GPU cannot be forked')]


def train(disk: Path, *options: str, **strikes: object) -> str:
    """What the command says when it fails; empty where it does not."""
    config = disk.with_name('config.py')
    config.write_text(f"""
_base_ = [{str(CONFIGS / DISTILLED['classification'])!r}]
custom_imports = dict(imports=['tests.machines.faults'], allow_failed_imports=False)
custom_hooks = [*_base_.custom_hooks, {dict(type='Strikes', disk=str(disk), **strikes)!r}]
model = dict(teacher=dict(checkpoint=None))
train_cfg = dict(max_epochs={EPOCHS}, val_interval=10)
val_cfg = None
val_dataloader = None
val_evaluator = None
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, num_batch_per_epoch=2)
default_hooks = dict(_delete_=True, checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2),
                     logger=dict(type='LoggerHook', interval=1))
randomness = dict(seed=1)
""")
    sys.argv = ['train.py', str(config), '--work-dir', str(disk / 'run'), *options]
    try:
        load_script('tools/train.py').main()
    except KeyboardInterrupt:
        return 'stopped'
    except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
        return f'{type(error).__name__}: {error}'
    return ''


def on_a_disk(folder, work, send):
    """In a process of its own, whose mounts end with it."""
    faults.own_mounts()
    folder.mkdir()
    work(faults.make_disk(folder), send)
    shutil.copytree(folder / 'disk' / 'run', folder / 'left')


def run(folder, work):
    """What the work sent, what it printed, and the folder."""
    child, sent = Child(partial(on_a_disk, folder, work), str(folder.with_suffix('.console'))), []
    while (message := child.receive()) is not None:
        sent.append(message)
    assert child.join() == 0, child.last_lines(40)
    return sent, folder.with_suffix('.console').read_text(), folder / 'left'


def complete(disk):
    return sorted(file.name for file in (disk / 'run').glob('*.pth') if read_checkpoint_file(str(file)))


@pytest.fixture(scope='module')
def straight(digits, tmp_path_factory):
    before = os.getcwd()
    os.chdir(digits)
    yield run(tmp_path_factory.mktemp('straight') / 'folder', lambda disk, send: send(train(disk)))[2]
    os.chdir(before)


def check_same(straight, folder):
    first, second = (read_checkpoint_file(str(place / f'epoch_{EPOCHS}.pth')) for place in (straight, folder))
    for part in PARTS:
        check_equal(first[part], second[part], part)
    assert not list(folder.glob('.*')), 'nothing is left half-written'


def strike(name, disk, send):
    send(train(disk, fault=name))
    WHILE_TRAINING[name].heal(disk)
    send(complete(disk))
    send(train(disk, '--resume'))


@pytest.mark.parametrize('name', WHILE_TRAINING)
def test_a_fault_while_training(straight, in_digits, tmp_path, name):
    [said, left, again], console, folder = run(tmp_path / 'folder', partial(strike, name))
    assert re.match(f'DiskFaultError: .*{WHILE_TRAINING[name].says}', said), said
    assert name in ('unmounted', 'moved') or 'epoch_1.pth is complete' in said and said.endswith(GO_ON), said
    assert left == ['epoch_1.pth'] and again == '', (left, again)
    assert 'Logging error' not in console and console.count('cannot be written (') <= 1, console
    check_same(straight, folder)


def cannot_start(name, disk, send):
    AT_THE_START[name].strike(disk)
    send(train(disk))
    AT_THE_START[name].heal(disk)
    send(train(disk))


@pytest.mark.parametrize('name', AT_THE_START)
def test_a_fault_at_the_start(straight, in_digits, tmp_path, name):
    [said, again], console, folder = run(tmp_path / 'folder', partial(cannot_start, name))
    assert re.match(f'DiskFaultError: .*{AT_THE_START[name].says}', said) and again == '', (said, again)
    assert 'Logging error' not in console
    check_same(straight, folder)


def spoil(name, disk, send):
    send(train(disk, stop=2))
    AFTER_TWO_EPOCHS[name][0](disk)
    send(train(disk, '--resume'))


@pytest.mark.parametrize('name', AFTER_TWO_EPOCHS)
def test_files_that_are_spoiled_between_two_trainings(straight, in_digits, tmp_path, name):
    sent, console, folder = run(tmp_path / 'folder', partial(spoil, name))
    assert sent == ['stopped', ''] and len(re.findall(AFTER_TWO_EPOCHS[name][1], console)) == 1, (sent, console)
    check_same(straight, folder)


def spoil_all(disk, send):
    train(disk, stop=2)
    for file in (disk / 'run').glob('*.pth'):
        faults.cut(file)
    send(train(disk, '--resume'))
    (disk / 'run' / 'last_checkpoint').unlink()
    send(train(disk))


def test_nothing_is_begun_anew_unasked_where_all_are_spoiled(straight, in_digits, tmp_path):
    [said, again], _, folder = run(tmp_path / 'folder', spoil_all)
    assert re.match('CheckpointError: .*epoch_2.pth.* cut short .* no other complete checkpoint .* or remove .*'
                    'last_checkpoint, to begin anew', said) and again == '', (said, again)
    check_same(straight, folder)


def do_not_answer(disk, send):
    """With a stand-in for a network file system of which no checkpoint can be read."""
    def fail(file, *mode):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(file))

    train(disk, stop=2)
    safe_load.open = fail
    send(train(disk, '--resume'))
    del safe_load.open
    send(complete(disk))
    send((disk / 'run' / 'last_checkpoint').read_text())
    send(train(disk, '--resume'))


def test_a_disk_that_cannot_be_read_is_no_reason_to_resume_from_an_older_file(straight, in_digits, tmp_path):
    [said, left, noted, again], _, folder = run(tmp_path / 'folder', do_not_answer)
    assert re.match(f'DiskFaultError: .*/epoch_2.pth cannot be read or written: {faults.SLOW}', said), said
    assert 'cannot be seen now' in said, 'which is not to say that there is none'
    assert again == '' and left == ['epoch_1.pth', 'epoch_2.pth'] and noted.endswith('epoch_2.pth')
    check_same(straight, folder)


def start_a_second(disk, send):
    """After the first epoch of the first."""
    def second(_):
        child = Child(lambda tell: tell(train(disk)), str(disk.with_name('second.console')))
        send(child.receive())
        child.join()
        send(complete(disk))

    WHILE_TRAINING['a second'] = faults.Fault(second, None, '')
    send(train(disk, fault='a second'))


def test_two_trainings_in_one_folder(straight, in_digits, tmp_path):
    [said, left, first], _, folder = run(tmp_path / 'folder', start_a_second)
    assert re.match(r'WorkDirInUseError: another training is at work in .*/run: process \d+ on .*, since .* --work-dir',
                    said) and left == ['epoch_1.pth'] and first == '', (said, left, first)
    check_same(straight, folder)
