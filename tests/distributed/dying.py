"""A hook that lets one process of a job die, for trainings that tests start."""
import os
import signal
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class Dies(Hook):
    """In the third iteration, in one process, after leaving the file ``died``.

    Args:
        rank: Of the process.
        how: 'killed', as by the system when memory runs out, or 'raises'.
    """

    def __init__(self, rank: int, how: str) -> None:
        self.rank, self.how = rank, how

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if get_rank() != self.rank or runner.iter != 2:
            return
        Path(runner.work_dir, 'died').touch()
        if self.how == 'killed':
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError('the hook of a test gave up')
