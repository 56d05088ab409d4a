"""Randomness that depends on where training is, not on how it got there."""
import random
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dataset import worker_init_fn
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from mmfeatdistill.registry import HOOKS

_EPOCH_STRIDE = 10_007
"""Keeps the seeds of an epoch's data workers apart from those of its neighbours."""


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Makes a resumed training continue as the uninterrupted one would have.

    mmengine saves weights, optimiser and schedules, but no random state. This hook derives the random
    state of every iteration from the seed, the rank and the iteration's number, and that of the data
    workers from the seed and the epoch's. So samplers of proposals, dropout and augmentations draw the
    same numbers after resuming, whatever happened before. Workers are restarted at each epoch for that.
    """

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Any) -> None:
        """Seeds the data workers of an epoch.

        Args:
            runner (Runner): The runner. Of an iteration-based loop nothing changes: on resuming it
                replays its one pass over the data.
        """
        self._seed_process(runner)
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            return
        loader = runner.train_dataloader
        if hasattr(loader.sampler, 'seed') and not runner._randomness_cfg.get('diff_rank_seed', False):
            # Where no seed was configured, resuming has taken over that of the checkpoint meanwhile.
            loader.sampler.seed = runner.seed
        loader.worker_init_fn = partial(
            worker_init_fn, num_workers=loader.num_workers, rank=get_rank(),
            seed=runner.seed + _EPOCH_STRIDE * runner.epoch)
        # Persistent workers keep the random state of the epochs before.
        loader._iterator = None

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Seeds the training process for an iteration.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Unused.
            data_batch (Any): Unused.
        """
        self._seed_process(runner)

    @staticmethod
    def _seed_process(runner: Any) -> None:
        numbers = np.random.SeedSequence((runner.seed, get_rank(), runner.iter)).generate_state(3)
        random.seed(int(numbers[0]))
        np.random.seed(numbers[1])
        torch.manual_seed(int(numbers[2]))
