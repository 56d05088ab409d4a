"""What is said when a disk fails, where it fails as root and anyone else sees it; tests/machines has the trainings."""
import errno
import logging
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.device import is_cuda_available

from mmfeatdistill.atomic_files import FileNotWrittenError, atomic_write
from mmfeatdistill.checkpoints.atomic_backend import repair_last_checkpoint
from mmfeatdistill.checkpoints.safe_load import CheckpointError
from mmfeatdistill.engine.disk_faults import DiskFaultError, disk_faults_explained
from mmfeatdistill.engine.work_dir_lock import WorkDirInUseError, only_training_in
from mmfeatdistill.experiments.child_process import Child


def save(file: Path) -> None:
    torch.save(dict(state_dict=dict(weight=torch.ones(1000))), file)


def said(work_dir: Path, error: OSError) -> str:
    with pytest.raises(DiskFaultError) as info, disk_faults_explained(str(work_dir)):
        raise error
    assert info.value.__cause__ is error
    return str(info.value)


@pytest.mark.parametrize('number, words', [
    (errno.ENOSPC, r'the disk is full'), (errno.EDQUOT, 'the quota is used up'), (errno.EROFS, 'mounted read-only'),
    (errno.EACCES, 'this user may not write there'), (errno.EFBIG, 'ulimit -f'), (errno.ENOENT, 'it is gone'),
    (errno.ENOTDIR, 'is a file, not a folder'), (errno.EIO, 'does not answer, or is broken'),
    (errno.ESTALE, 'does not answer, or is broken'), (errno.ENOTCONN, 'does not answer, or is broken')])
def test_a_message_says_what_where_what_is_left_and_what_to_do(tmp_path, number, words):
    save(tmp_path / 'epoch_1.pth')
    file = tmp_path / 'epoch_2.pth'
    file.write_bytes((tmp_path / 'epoch_1.pth').read_bytes()[:900])
    text = said(tmp_path, OSError(number, os.strerror(number), str(file)))
    assert text.startswith(f'{file} cannot be ') and words in text and os.strerror(number) in text
    assert f'{tmp_path / "epoch_1.pth"} is complete, and is the last checkpoint' in text
    assert text.endswith('--resume: it goes on after that checkpoint.')


def test_where_nothing_was_saved_no_checkpoint_is_promised(tmp_path):
    text = said(tmp_path, OSError(errno.ENOSPC, 'No space left on device'))
    assert f'There is no complete checkpoint in {tmp_path}.' in text and '--resume' not in text
    gone = said(tmp_path / 'gone', OSError(errno.ENOENT, 'No such file', str(tmp_path / 'gone' / 'a.json')))
    assert 'cannot be seen now' in gone


@pytest.mark.parametrize('error', [
    FileNotFoundError(errno.ENOENT, 'No such file', '/data/image.png'),
    PermissionError(errno.EACCES, 'Permission denied', '/data/image.png'), OSError(errno.ENOTCONN, 'not connected'),
    OSError('a message of its own')])
def test_errors_of_other_files_and_of_the_network_are_left_as_they_are(tmp_path, error):
    with pytest.raises(OSError) as info, disk_faults_explained(str(tmp_path)):
        raise error
    assert info.value is error


def test_a_disk_that_holds_the_data_counts(tmp_path):
    save(tmp_path / 'epoch_1.pth')
    text = said(tmp_path, OSError(errno.ESTALE, 'Stale file handle', '/data/image.png'))
    assert text.startswith('/data/image.png cannot be read or written') and 'epoch_1.pth is complete' in text
    assert '--work-dir' not in text, 'which would not help'


def test_a_log_on_a_full_disk_is_told_once(tmp_path, capsys):
    (tmp_path / 'a.log').symlink_to('/dev/full')
    handler = logging.FileHandler(tmp_path / 'a.log')
    logger = logging.Logger('full')
    logger.addHandler(handler)
    before = logging.FileHandler.handleError
    with disk_faults_explained(str(tmp_path)):
        for _ in range(3):
            logger.info('a line')
    printed = capsys.readouterr().err
    assert printed.count('cannot be written (No space left on device)') == 1 and 'Traceback' not in printed
    assert logging.FileHandler.handleError is before


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path):
    (tmp_path / 'note').write_text('before')
    (tmp_path / f'.note.{os.getpid()}.tmp').symlink_to('/dev/full')
    with pytest.raises(FileNotWrittenError, match='No space left') as info:
        atomic_write(tmp_path / 'note', 'after')
    assert info.value.path == str(tmp_path / 'note') and info.value.errno == errno.ENOSPC
    assert [file.name for file in tmp_path.iterdir()] == ['note'] and (tmp_path / 'note').read_text() == 'before'


# --- what is resumed -------------------------------------------------------------------------


def test_a_file_of_the_right_length_in_which_a_part_is_lost_is_not_resumed(tmp_path):
    for number in (1, 2):
        save(tmp_path / f'epoch_{number}.pth')
        os.utime(tmp_path / f'epoch_{number}.pth', (number, number))
    with open(tmp_path / 'epoch_2.pth', 'r+b') as file:
        file.seek(2000)
        file.write(bytes(500))
    assert torch.load(tmp_path / 'epoch_2.pth')['state_dict']['weight'].sum() < 1000, 'PyTorch does not see it'
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
    repair_last_checkpoint(str(tmp_path), str(tmp_path), 'epoch_{}.pth')
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_1.pth')


def test_where_no_checkpoint_is_left_nothing_is_begun_anew_unasked(tmp_path):
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    with pytest.raises(CheckpointError, match=r'epoch_1.pth., which is gone, and there is no other complete checkpoint '
                                              r'.* --resume CHECKPOINT; or remove .*last_checkpoint, to begin anew'):
        repair_last_checkpoint(str(tmp_path), str(tmp_path), 'epoch_{}.pth')


# --- two trainings ---------------------------------------------------------------------------


def enter(work_dir, send):
    try:
        with only_training_in(str(work_dir)):
            send('in')
    except WorkDirInUseError as error:
        send(str(error))


def hold(work_dir, send):
    with only_training_in(str(work_dir)):
        worker = os.fork()  # as a data worker, which may outlive the training
        if worker == 0:
            os.read(os.open(work_dir / 'pipe', os.O_RDONLY), 1)
            os._exit(0)
        send(worker)
        os.kill(os.getpid(), 9)


@pytest.mark.skipif(is_cuda_available(), reason='a process that has looked for a GPU cannot be forked')
def test_one_training_at_a_time_and_a_killed_one_locks_nothing(tmp_path):
    def other() -> str:
        child = Child(partial(enter, tmp_path), str(tmp_path / 'console'))
        answer = child.receive()
        child.join()
        return answer

    with only_training_in(str(tmp_path)):
        refused = other()
    assert f'process {os.getpid()} on ' in refused and '--work-dir' in refused
    assert other() == 'in'
    os.mkfifo(tmp_path / 'pipe')
    killed = Child(partial(hold, tmp_path), str(tmp_path / 'console'))
    worker = killed.receive()
    assert killed.join() == -9 and other() == 'in'
    os.kill(worker, 9)
