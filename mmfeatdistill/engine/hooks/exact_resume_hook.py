"""Randomness that depends on where training is, not on how it got there."""
import random
from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.model import is_model_wrapper
from torch.utils.data import get_worker_info

from mmfeatdistill.distillers.building import ADDED
from mmfeatdistill.engine.hooks._carried_state import CarriedState
from mmfeatdistill.engine.hooks._index_stream import EndlessBatches, Indices, batch_size_of, is_map_style
from mmfeatdistill.engine.hooks._resume_warnings import warn_of_what_is_not_exact
from mmfeatdistill.registry import HOOKS

_WORKER_STREAM, _INDEX_STREAM = 1, 2
"""Keep the numbers of the data workers, and those of samplers, apart from those of the training process."""


_STATE = 'state'
"""Where in the part for resuming of a checkpoint there is what has changed besides tensors."""

_PROCESSES = 'processes'
"""Where in ``meta`` of a checkpoint there is how many processes have trained."""

_IMAGES = 'images'
"""Likewise how many images there were in a step, in all processes."""


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Makes a resumed training continue as the uninterrupted one would have.

    mmengine saves weights, optimizer and schedules, but no random state and nothing of data loading. This hook

    - derives the random state of every iteration from the seed, the rank and the iteration's number, in the training
      process and, for every batch, where it is loaded. So samplers of proposals, dropout and augmentations draw the
      same numbers after resuming, whatever happened before. Workers are restarted at each epoch for that;
    - lets samplers and batch samplers draw the indices that a resumed training has had already, and loads none of them;
    - saves what changes in the model, its data preprocessor, the datasets and their transforms, and hooks of others:
      counters, sizes, caches, generators, switches. It is in the checkpoint next to the connectors;
    - warns when training starts of what it cannot make exact.

    Where no seed is configured, the one that mmengine drew and saved is taken over.
    """

    priority = 'VERY_HIGH'
    _batches: Optional['_SeededBatches'] = None
    _indices: Optional[Indices] = None
    state: Optional[CarriedState] = None
    """What changes, from the start of the training."""
    loaded: Optional[dict] = None
    """What had changed in the training that is resumed, until it has been put back."""

    def before_run(self, runner: Any) -> None:
        """Registers what acts before and after all other hooks.

        Args:
            runner (Runner): The runner.
        """
        if not any(isinstance(hook, _StateSaver) for hook in runner.hooks):
            runner.register_hook(_StateSaver(self), priority='LOWEST')
            runner.register_hook(_StateLoader(self), priority='HIGHEST')

    def before_train(self, runner: Any) -> None:
        """Lets the data workers be seeded batch by batch, and notes what everything is like before training.

        Args:
            runner (Runner): The runner.
        """
        loader = runner.train_dataloader
        samplers: list[Any] = [loader.sampler, getattr(loader.batch_sampler, 'sampler', None)]
        for sampler in samplers:
            if hasattr(sampler, 'seed') and not runner._randomness_cfg.get('diff_rank_seed', False):
                # Where no seed was configured, resuming has taken over that of the checkpoint meanwhile.
                sampler.seed = runner.seed
        self.state = CarriedState(_roots(runner))
        warn_of_what_is_not_exact(runner, self.state)
        loader.generator = torch.Generator()  # in place of this process's, from which each start of loading would draw
        self._batches = _SeededBatches(loader.collate_fn, loader.worker_init_fn, (runner.seed, get_rank()))
        loader.collate_fn, loader.worker_init_fn = self._batches, self._batches.begin
        if is_map_style(loader):
            self._indices = Indices(loader.batch_sampler,
                                    lambda number: _seed(runner.seed, get_rank(), number, _INDEX_STREAM))
            vars(loader)['batch_sampler'] = self._indices  # a DataLoader refuses to be given another

    def before_train_epoch(self, runner: Any) -> None:
        """Starts the data workers of an epoch, or of all of an iteration-based training.

        Args:
            runner (Runner): The runner.
        """
        loader, loop = runner.train_dataloader, runner.train_loop
        stream: Any = getattr(loop, 'dataloader_iterator', None)
        # Persistent workers keep the random state of the epochs before.
        loader._iterator = None
        started = getattr(stream, '_iterator', None) is not None and loader.num_workers > 0
        if stream is not None and self._indices is not None and not started:
            skip = 0 if getattr(loop, 'fast_forward_on_resume', False) else runner.iter
            # The loop of mmengine 0.10.7 and older takes all batches that have been had, to drop them.
            loop.dataloader_iterator = EndlessBatches(loader, skip, 0 if hasattr(stream, 'skip_iter') else skip)
            self._indices.number = runner.iter
            self._expect(runner.iter)
            return
        if self._indices is not None and stream is None:
            if self.loaded is not None and self.state is not None and _hides_position(self.state):
                self._indices.number = 0
                for epoch in range(runner.epoch):
                    self._indices.skip_pass(epoch)
            self._indices.number = runner.iter
        # What is left loads all that a resumed training has had already.
        self._expect(runner.iter if stream is None else 0)

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


class _StateLoader(Hook):
    """Takes the state out of a checkpoint before any other hook sees it."""

    def __init__(self, owner: ExactResumeHook) -> None:
        self._owner = owner

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Keeps the state for the start of the training, if it is resumed."""
        state = checkpoint.get(ADDED, {}).pop(_STATE, None)
        if runner._resume:
            self._owner.loaded = state or {}
            meta = checkpoint.get('meta', {})
            before, now = meta.get(_PROCESSES), get_world_size()
            if before not in (None, now):
                runner.logger.warning(explain_other_number(
                    before, now, runner.train_dataloader.batch_size))
            elif meta.get(_IMAGES) is not None and meta[_IMAGES] != (images := _images_of_a_step(runner)):
                runner.logger.warning(explain_other_batch(
                    meta[_IMAGES], images, hasattr(runner.train_loop, 'dataloader_iterator')))


class _StateSaver(Hook):
    """Saves the state, and puts it back, after what other hooks do at the same time."""

    def __init__(self, owner: ExactResumeHook) -> None:
        self._owner = owner
        self._told: set[str] = set()
        self._missing: list[str] = []

    def before_train(self, runner: Any) -> None:
        """Puts back what has changed in objects that are built from the config."""
        state, loaded = self._owner.state, self._owner.loaded
        if state is not None and loaded is not None:
            state.meet()
            _tell(runner, state.restore(loaded, replaced=False))

    def before_train_epoch(self, runner: Any) -> None:
        """Puts back what has changed in objects that hooks put in others' place, now that they have done so again."""
        state, loaded = self._owner.state, self._owner.loaded
        if state is None:
            return
        state.meet()
        if loaded is not None:
            self._missing = state.restore(loaded, replaced=True)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Puts back what has changed in objects that hooks put in others' place at an iteration."""
        state, loaded = self._owner.state, self._owner.loaded
        if state is None or loaded is None:
            return
        if self._missing:
            state.meet()
            missing = {name: loaded[name] for name in self._missing if name in loaded}
            _tell(runner, state.restore(missing, replaced=True))
        self._owner.loaded = None

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Puts what has changed next to the connectors."""
        if self._owner.state is None:
            return
        checkpoint.setdefault('meta', {}).update({_PROCESSES: get_world_size(), _IMAGES: _images_of_a_step(runner)})
        self._owner.state.meet(late=True)
        saved, lost = self._owner.state.changed()
        if saved:
            # Whoever puts the connectors back expects a part for each kind of weights.
            kinds: dict = {name: {} for name in ('state_dict', 'ema_state_dict') if name in checkpoint}
            checkpoint.setdefault(ADDED, kinds)[_STATE] = saved
        lost = [name for name in lost if name not in self._told and not name.startswith(('model.', 'hooks.'))
                or '.data_preprocessor.' in name]
        self._told.update(lost)
        _tell(runner, lost)


def explain_other_number(before: int, now: int, batch_size: Any) -> str:
    """Says what stays the same in a training that is resumed by another number of processes.

    Args:
        before (int): Processes that wrote the checkpoint.
        now (int): Those that resume.
        batch_size (int, optional): Images of each of these in a step; None where a batch sampler decides.

    Returns:
        str: A warning.

    Examples:
        >>> print(explain_other_number(2, 1, 4).partition(':')[0])
        Resumed by 1 process, and saved by 2
    """
    images = f'now {now} x {batch_size}' if batch_size else f'now those of {now} batches'
    return (f'Resumed by {now} process{"es" * (now > 1)}, and saved by {before}: weights, optimizer, averages and the '
            'position in the schedule are those of the checkpoint. The training does not end with the same weights, '
            'bit for bit: each process draws random numbers of its own, and its losses and BatchNorms see its own '
            f'images. Keep the number of images in a step ({images}), by train_dataloader.batch_size: each step then '
            'has the same images, and schedules and learning rate stay right.')


def explain_other_batch(before: int, now: Optional[int], by_iteration: bool) -> str:
    """What to say of a training that goes on with batches of another size.

    Args:
        before (int): Images of a step of all processes that wrote the checkpoint.
        now (int, optional): Of those that resume; None where that is not known.
        by_iteration (bool): Whether the training counts iterations.

    Returns:
        str: A warning.

    Examples:
        >>> print(explain_other_batch(4, 2, True).partition(':')[0])
        Resumed with 2 images in a step, and saved with 4
    """
    data = ('As many batches as before are left out, of the size of now, so images are had again or never'
            if by_iteration else 'An epoch has another number of iterations')
    return (f'Resumed with {now or "another number of"} images in a step, and saved with {before}: weights, optimizer, '
            'averages and the number of the iteration are those of the checkpoint. The training does not end with the '
            f'same weights. {data}, and schedules and learning rate belong to the batches from before. Keep '
            f'{before} images in a step, by train_dataloader.batch_size; where they do not fit into memory any more, '
            'start anew with load_from and optim_wrapper.accumulative_counts.')


def _images_of_a_step(runner: Any) -> Optional[int]:
    """Of all processes; None where a batch sampler does not say it."""
    size = batch_size_of(runner.train_dataloader)
    return None if size is None else size * get_world_size()


def _roots(runner: Any) -> dict[str, Any]:
    """Where there may be state that mmengine does not save."""
    loader = runner.train_dataloader
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    roots = {'model': model, 'student': vars(model).get('student'), 'dataset': loader.dataset}
    if not hasattr(runner.train_loop, 'dataloader_iterator'):
        # Those of iteration-based trainings are ahead of the training, and skip indices.
        roots.update(sampler=loader.sampler, batch_sampler=loader.batch_sampler)
    # mmengine's own hooks, but for this one, take care of themselves.
    roots['hooks'] = {
        f'{type(hook).__name__}{number}': hook for number, hook in enumerate(runner.hooks)
        if type(hook).__module__.partition('.')[0] not in ('mmengine', 'mmfeatdistill')
        or isinstance(hook, EarlyStoppingHook)}
    return roots


def _hides_position(state: CarriedState) -> bool:
    """Whether a sampler goes on with an iterator of the epoch before."""
    return any(name.startswith(('sampler.', 'batch_sampler.')) for name in state.iterators)


def _tell(runner: Any, names: list[str]) -> None:
    """Warns of objects, but not of those that they consist of."""
    names = sorted(name for name in names if not any(name.startswith(f'{other}.') for other in names))
    if names:
        runner.logger.warning(f'Resuming is not exact: what has changed in {", ".join(names)} while training cannot be '
                              'saved, or the object is another after resuming, and no hook puts it in place again.')


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
