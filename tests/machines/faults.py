"""Faults of disks and files: what happens to the folder of a training, and what makes it good again.

Each begins where ``disk/run`` is the work directory, and ``disk`` is mounted from ``real``, a small disk in memory.
"""
import ctypes
import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

MEGABYTES, FILES = 64, 200
_CLONE_NEWNS = 0x20000


def own_mounts() -> None:
    """From now on, what this process mounts is its own, and is unmounted when it ends, however it does."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), 'no namespace of mounts')
    mount('--make-rprivate', '/')


def mount(*arguments: object) -> None:
    subprocess.run(['mount', *map(str, arguments)], check=True)


def unmount(folder: Path) -> None:
    subprocess.run(['umount', '--lazy', str(folder)], check=True)


def make_disk(folder: Path) -> Path:
    """The small disk, where it is mounted."""
    for name in ('real', 'disk'):
        (folder / name).mkdir()
    mount('-t', 'tmpfs', '-o', f'size={MEGABYTES}m,nr_inodes={FILES}', 'none', folder / 'real')
    mount('--bind', folder / 'real', folder / 'disk')
    return folder / 'disk'


@dataclass(frozen=True)
class Fault:
    """What happens, what is said, and what makes it good."""

    strike: Callable[[Path], Any]
    heal: Callable[[Path], Any]
    says: str


def fill(disk: Path) -> None:
    """Leaves no space, not even for a line of a log."""
    with suppress(OSError), open(disk / 'filler', 'wb', buffering=0) as file:
        while True:
            file.write(bytes(4096))


def fill_with_files(disk: Path) -> None:
    (disk / 'fillers').mkdir()
    with suppress(OSError):
        for number in range(FILES):
            (disk / 'fillers' / str(number)).touch()


def make_read_only(disk: Path) -> None:
    """As a kernel does with a disk that has errors; files that are open can be written in this case."""
    mount('--bind', disk, disk)
    mount('-o', 'remount,bind,ro', disk)


def remount(disk: Path) -> None:
    mount('--bind', disk.with_name('real'), disk)


def fail(number: int) -> Callable[[Path], None]:
    """A stand-in for a network file system: files cannot be completed."""
    def strike(disk: Path) -> None:
        def fsync(file: int) -> None:
            raise OSError(number, os.strerror(number))
        vars(os)['fsync'], vars(os)['_fsync'] = fsync, os.fsync
    return strike


def answer(disk: Path) -> None:
    vars(os)['fsync'] = vars(os).pop('_fsync')


def put_back(disk: Path) -> None:
    shutil.rmtree(disk / 'run', ignore_errors=True)
    (disk / 'moved').rename(disk / 'run')


def forbid(disk: Path) -> None:
    """A folder that its owner may not write to, and no privilege of root to do so nevertheless."""
    (disk / 'run').chmod(0o555)
    _set_privilege(False)


def permit(disk: Path) -> None:
    _set_privilege(True)
    (disk / 'run').chmod(0o755)


def _set_privilege(given: bool) -> None:
    """Of this process, to write whatever the modes of files are (CAP_DAC_OVERRIDE)."""
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    system = ctypes.CDLL(None, use_errno=True)
    assert system.capget(header, sets) == 0, os.strerror(ctypes.get_errno())
    sets[0] = sets[0] | 2 if given else sets[0] & ~2
    assert system.capset(header, sets) == 0, os.strerror(ctypes.get_errno())


SLOW = 'its file system does not answer, or is broken'
WHILE_TRAINING = {
    'full': Fault(fill, lambda disk: (disk / 'filler').unlink(), r'cannot be written: the disk is full \(No space '
                  r'left on device, 0.0 MB of 64.0 MB are free\).* Free some space there \(a checkpoint takes \d'),
    'no more files': Fault(fill_with_files, lambda disk: shutil.rmtree(disk / 'fillers'), r'run/epoch_2.pth cannot be '
                           rf'written: the disk is full .* no more than {FILES} files fit on it'),
    'read-only': Fault(make_read_only, unmount, r'it is mounted read-only .* Mount it for writing'),
    'unmounted': Fault(unmount, remount, 'it is gone: .* no longer mounted.* cannot be seen now'),
    'moved': Fault(lambda disk: (disk / 'run').rename(disk / 'moved'), put_back, 'it is gone: it was removed or moved'),
    'not permitted': Fault(forbid, permit, r'this user may not write there \(Permission denied'),
    'EIO': Fault(fail(errno.EIO), answer, rf'run/epoch_2.pth cannot be written: {SLOW} \(Input/output error\)'),
    'ESTALE': Fault(fail(errno.ESTALE), answer, rf'run/epoch_2.pth cannot be written: {SLOW} \(Stale file handle\)'),
    'ETIMEDOUT': Fault(fail(errno.ETIMEDOUT), answer, rf'{SLOW} \(Connection timed out\)'),
    'quota': Fault(fail(errno.EDQUOT), answer, r'the quota is used up .* ask for a larger quota'),
}
"""Strike after the first epoch, when its checkpoint is there."""

AT_THE_START = {
    'full': Fault(fill, lambda disk: (disk / 'filler').unlink(), 'cannot be written: the disk is full'),
    'no more files': Fault(fill_with_files, lambda disk: shutil.rmtree(disk / 'fillers'), 'cannot be written: .* no '
                           rf'more than {FILES} files fit on it'),
    'read-only': Fault(make_read_only, unmount, 'it is mounted read-only'),
    'a file': Fault(lambda disk: (disk / 'run').touch(), lambda disk: (disk / 'run').unlink(),
                    'is a file, not a folder'),
}


def newest(disk: Path) -> Path:
    return disk / 'run' / 'epoch_2.pth'


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size * 2 // 3)


def lose_a_part(file: Path) -> None:
    """The length stays, as where a disk has not written all that it was given before the power was gone."""
    with open(file, 'r+b') as opened:
        opened.seek(file.stat().st_size // 2)
        opened.write(bytes(2048))


AFTER_TWO_EPOCHS = {
    'cut short': (lambda disk: cut(newest(disk)), r"names '.*epoch_2.pth', which is cut short or broken. Resuming from "
                  r'.*epoch_1.pth'),
    'a part is lost': (lambda disk: lose_a_part(newest(disk)), 'which is cut short or broken. Resuming from .*epoch_1'),
    'empty': (lambda disk: os.truncate(newest(disk), 0), 'which is cut short or broken. Resuming from .*epoch_1'),
    'gone': (lambda disk: newest(disk).unlink(), r"names '.*epoch_2.pth', which is gone. Resuming from .*epoch_1.pth"),
    'the note is empty': (lambda disk: os.truncate(disk / 'run' / 'last_checkpoint', 0), 'last_checkpoint names nothing'
                          '. Resuming from .*epoch_2.pth'),
}
"""What happens to the files of a training that was stopped, and what is said when it is resumed."""


@HOOKS.register_module()
class Strikes(Hook):
    """Lets a fault strike after the first epoch, or ends the training after an epoch.

    Args:
        disk: Where.
        fault: Of ``WHILE_TRAINING``.
        stop: The epoch.
    """

    priority = 'LOWEST'

    def __init__(self, disk: str = '', fault: str = '', stop: int = 0) -> None:
        self.disk, self.fault, self.stop = disk, fault, stop

    def after_train_epoch(self, runner) -> None:
        if self.fault and runner.epoch == 0:
            WHILE_TRAINING[self.fault].strike(Path(self.disk))
        if runner.epoch + 1 == self.stop:
            raise KeyboardInterrupt
