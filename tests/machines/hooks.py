"""A hook for trainings that something happens to."""
import os
import time
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class Diary(Hook):
    """Notes each iteration that was trained, in a file of each process, and takes its time for it.

    Args:
        pause: Seconds after each iteration, in which something can happen to it.
    """

    priority = 'LOWEST'

    def __init__(self, pause: float) -> None:
        self.pause = pause

    def before_run(self, runner) -> None:
        self._note(runner, f'built {runner.iter}')

    def before_train(self, runner) -> None:
        self._note(runner, f'start {runner.iter}')

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._note(runner, f'iteration {runner.iter + 1}')
        time.sleep(self.pause)

    def after_train(self, runner) -> None:
        self._note(runner, f'end {runner.iter}')

    def _note(self, runner, text: str) -> None:
        with open(Path(runner.work_dir, f'diary_{get_rank()}'), 'a') as file:
            file.write(f'{time.time():.2f} {os.getpid()} {text}\n')
