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

_WORKER_STREAM = 1
"""Keeps the numbers of the data workers apart from those of the training process."""


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Makes a resumed training continue as the uninterrupted one would have.

    mmengine saves weights, optimizer and schedules, but no random state. This hook derives the random state of
    every iteration from the seed, the rank and the iteration's number, in the training process and, for every
    batch, where it is loaded. So samplers of proposals, dropout and augmentations draw the same numbers after
    resuming, whatever happened before. Workers are restarted at each epoch for that.

    Where no seed is configured, the one that mmengine drew and saved is taken over. An iteration-based training
    is exact with mmengine's ``InfiniteSampler``, as such schedules have it.
    """

    priority = 'VERY_HIGH'
    _batches: Optional['_SeededBatches'] = None

    def before_train(self, runner: Any) -> None:
        """Lets the data workers be seeded batch by batch."""
        loader = runner.train_dataloader
        samplers: list[Any] = [loader.sampler, getattr(loader.batch_sampler, 'sampler', None)]
        for sampler in samplers:
            if hasattr(sampler, 'seed') and not runner._randomness_cfg.get('diff_rank_seed', False):
                # Where no seed was configured, resuming has taken over that of the checkpoint meanwhile.
                sampler.seed = runner.seed
        loader.generator = torch.Generator()  # in place of this process's, from which each start of loading would draw
        self._batches = _SeededBatches(loader.collate_fn, loader.worker_init_fn, (runner.seed, get_rank()))
        loader.collate_fn, loader.worker_init_fn = self._batches, self._batches.begin

    def before_train_epoch(self, runner: Any) -> None:
        """Starts the data workers of an epoch, or of all of an iteration-based training."""
        loader = runner.train_dataloader
        stream: Any = getattr(runner.train_loop, 'dataloader_iterator', None)
        # Persistent workers keep the random state of the epochs before.
        loader._iterator = None
        if loader.num_workers == 0 and getattr(stream, '_iterator', None) is not None:
            stream._iterator = iter(loader)  # of mmengine 0.10.7 and older, which made it before there was this hook
        # Those also load all that a resumed training has had already.
        loads_all = stream is not None and not hasattr(stream, 'skip_iter')
        self._expect(0 if loads_all else runner.iter)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Seeds the training process for an iteration."""
        _seed(runner.seed, get_rank(), runner.iter)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                         outputs: Optional[dict] = None) -> None:
        """Prepares for the next batch."""
        self._expect(runner.iter + 1)

    def after_val_epoch(self, runner: Any, metrics: Optional[dict] = None) -> None:
        """Prepares for the next batch, as validation draws random numbers too."""
        self._expect(runner.iter)

    def _expect(self, number: int) -> None:
        """Prepares for a batch that this process loads itself, or that is the first of workers that are started."""
        if self._batches is not None:  # there is none in validation without training
            self._batches.first = number
            self._batches.seed(number)


class _SeededBatches:
    """A collate function that leaves its process with the random state for the next batch that it loads.

    Batches go round the workers in turn, so each worker knows the numbers of its own.
    """

    def __init__(self, collate: Callable[[Sequence], Any], init: Optional[Callable[[int], None]],
                 prefix: tuple[int, ...]) -> None:
        self._collate = collate
        self._init = init
        self._prefix = prefix
        self.first = self._number = 0

    def begin(self, worker_id: int) -> None:
        """Starts a worker as its loader would, and seeds it for its first batch."""
        if self._init is not None:
            self._init(worker_id)
        self.seed(self.first + worker_id)

    def __call__(self, batch: Sequence) -> Any:
        collated = self._collate(batch)
        worker = get_worker_info()
        self.seed(self._number + (1 if worker is None else worker.num_workers))
        return collated

    def seed(self, number: int) -> None:
        """Seeds this process for the batch of an iteration.

        Args:
            number (int): Of the iteration.
        """
        self._number = number
        _seed(*self._prefix, number, _WORKER_STREAM)


def _seed(*numbers: int) -> None:
    """Seeds all generators of this process with a mixture of some numbers."""
    first, second, third = np.random.SeedSequence(numbers).generate_state(3)
    random.seed(int(first))
    np.random.seed(second)
    torch.manual_seed(int(third))
