"""Randomness that depends on where training is, not on how it got there."""
import random
from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from torch.utils.data import get_worker_info

from mmfeatdistill.registry import HOOKS


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Makes a resumed training continue as the uninterrupted one would have.

    mmengine saves weights, optimiser and schedules, but no random state. This hook derives the random state of
    every iteration from the seed, the rank and the iteration's number, in the training process and, for every
    batch, in the data workers. So samplers of proposals, dropout and augmentations draw the same numbers after
    resuming, whatever happened before. Workers are restarted at each epoch for that.

    Where no seed is configured, the one that mmengine drew and saved is taken over.
    """

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Any) -> None:
        """Prepares the data workers of an epoch, or of the whole of an iteration-based training.

        Args:
            runner (Runner): The runner.
        """
        _seed(runner.seed, get_rank(), runner.iter)
        loader = runner.train_dataloader
        if hasattr(loader.sampler, 'seed') and not runner._randomness_cfg.get('diff_rank_seed', False):
            # Where no seed was configured, resuming has taken over that of the checkpoint meanwhile.
            loader.sampler.seed = runner.seed
        if loader.num_workers:
            collate = getattr(loader.collate_fn, 'collate', loader.collate_fn)
            loader.collate_fn = _SeededBatches(collate, (runner.seed, get_rank()), runner.iter)
            loader.worker_init_fn = loader.collate_fn.begin
            # Persistent workers keep the random state of the epochs before.
            loader._iterator = None

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Seeds the training process for an iteration.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Unused.
            data_batch (Any): Unused.
        """
        _seed(runner.seed, get_rank(), runner.iter)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                         outputs: Optional[dict] = None) -> None:
        """Seeds the training process for the next batch, which it may load itself.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Unused.
            data_batch (Any): Unused.
            outputs (dict, optional): Unused.
        """
        _seed(runner.seed, get_rank(), runner.iter + 1)


class _SeededBatches:
    """A collate function that leaves its data worker with the random state for the worker's next batch.

    Batches go round the workers in turn, so each worker knows the numbers of its own.
    """

    def __init__(self, collate: Callable[[Sequence], Any], seed: tuple[int, ...], first: int) -> None:
        self.collate = collate
        self._prefix = seed
        self._next = first

    def begin(self, worker_id: int) -> None:
        """Seeds a worker for its first batch."""
        self._next += worker_id
        _seed(*self._prefix, self._next)

    def __call__(self, batch: Sequence) -> Any:
        collated = self.collate(batch)
        worker = get_worker_info()
        assert worker is not None, 'is installed only where there are data workers'
        self._next += worker.num_workers
        _seed(*self._prefix, self._next)
        return collated


def _seed(*numbers: int) -> None:
    """Seeds all generators of this process with a mixture of some numbers."""
    first, second, third = np.random.SeedSequence(numbers).generate_state(3)
    random.seed(int(first))
    np.random.seed(second)
    torch.manual_seed(int(third))
