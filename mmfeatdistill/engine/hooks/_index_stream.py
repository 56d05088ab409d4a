"""The order of the data, moved to where a training stopped without loading any."""
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Optional

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset


class Indices:
    """A batch sampler that can skip batches, in place of another.

    Every batch is drawn with a random state of its own, as samplers may draw from the generators of the process; these
    are left as they were.

    Args:
        source (Any): The batch sampler.
        seed (Callable): Seeds all generators of the process for the batch of a number.
    """

    def __init__(self, source: Any, seed: Callable[[int], None]) -> None:
        self._source = source
        self._seed = seed
        self._skipped: Optional[Iterator] = None
        self.number = 0
        """Of the next batch since the training began."""

    def __iter__(self) -> Iterator:
        # Only now, with the first batch: loaders with workers ask for two iterators, and drop the first.
        stream, self._skipped = self._skipped or self._stream(), None
        yield from stream

    def __len__(self) -> int:
        return len(self._source)

    def __getattr__(self, name: str) -> Any:
        if '_source' not in self.__dict__:  # while it is copied
            raise AttributeError(name)
        return getattr(self._source, name)

    def skip(self, count: int) -> int:
        """Leaves out the batches that a stopped training has had, over as many passes as it took.

        Args:
            count (int): Of batches.

        Returns:
            int: How many passes have ended.
        """
        sampler: Any = getattr(self._source, 'sampler', None)
        if type(self._source) is BatchSampler and hasattr(sampler, 'skip'):
            sampler.skip(count * self._source.batch_size)
            self.number = count
            return 0
        self.number = passes = 0
        self._skipped = self._stream()
        while self.number < count:
            before = self.number
            for _ in islice(self._skipped, count - before):
                pass
            if self.number < count:
                passes += 1
                self.set_epoch(passes)
                self._skipped = self._stream()
            if self.number == before:
                break  # there are no data
        return passes

    def skip_pass(self, epoch: int) -> None:
        """Leaves out the batches of an epoch.

        Args:
            epoch (int): Its number.
        """
        self.set_epoch(epoch)
        for _ in self._stream():
            pass

    def set_epoch(self, epoch: int) -> None:
        """Tells the sampler the number of a pass, as mmengine does."""
        sampler: Any = getattr(self._source, 'sampler', None)
        if hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(epoch)

    def _stream(self) -> Iterator:
        with self._drawing():
            iterator = iter(self._source)
        while True:
            with self._drawing():
                try:
                    batch = next(iterator)
                except StopIteration:
                    return
            self.number += 1
            yield batch

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        self._seed(self.number)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])


class EndlessBatches:
    """In place of the iterator of mmengine's ``IterBasedTrainLoop``: resumes by skipping indices, whatever draws them.

    Args:
        loader (DataLoader): Of the training; its batch sampler is an :class:`Indices`.
        skip (int): How many batches a stopped training has had.
        calls_to_ignore (int): How many batches the loop takes only to get there, as that of mmengine 0.10.7 does.
    """

    def __init__(self, loader: DataLoader, skip: int, calls_to_ignore: int = 0) -> None:
        self._loader = loader
        self._skip = skip
        self._calls_to_ignore = calls_to_ignore
        self._passes = 0
        self._iterator: Any = None

    def __iter__(self) -> 'EndlessBatches':
        return self

    def __next__(self) -> Any:
        if self._calls_to_ignore:
            self._calls_to_ignore -= 1
            return None
        indices: Any = self._loader.batch_sampler
        if self._iterator is None:
            if self._skip:
                self._passes = indices.skip(self._skip)
            self._iterator = iter(self._loader)
        try:
            return next(self._iterator)
        except StopIteration:
            self._passes += 1
            indices.set_epoch(self._passes)
            # Persistent workers go on counting batches where they were, which begin with the first of them again.
            self._loader._iterator = None
            self._iterator = iter(self._loader)
            return next(self._iterator)

    def skip_iter(self, num_iters: int) -> None:
        """Does nothing, as the batches that have been had are skipped where the indices are drawn.

        Args:
            num_iters (int): Unused.
        """


def batch_size_of(loader: DataLoader) -> Optional[int]:
    """Images of a batch, where the loader itself has no number that of its batch sampler, such as detectors have.

    Args:
        loader (DataLoader): The loader.

    Returns:
        int: None where neither says it.
    """
    size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None)
    return size if isinstance(size, int) else None


def is_map_style(loader: DataLoader) -> bool:
    """Whether a loader takes batches of its dataset by index."""
    return loader.batch_sampler is not None and not isinstance(loader.dataset, IterableDataset)
