"""What a resumed training will not have again, said when training starts."""
import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import CheckpointHook
from torch.utils.data import DataLoader, Dataset

from mmfeatdistill.engine.hooks._carried_state import CarriedState, same
from mmfeatdistill.engine.hooks._index_stream import is_map_style

_TRIES = 8
"""With as many random states each transform that is applied at random should have its turn."""


def warn_of_what_is_not_exact(runner: Any, state: CarriedState) -> None:
    """Logs one warning with everything of a training that cannot be resumed exactly, or none.

    Args:
        runner (Runner): The runner.
        state (CarriedState): What may change in the training.
    """
    reasons = list(_reasons(runner, state))
    if reasons:
        runner.logger.warning('Resumed from a checkpoint, this training would not end with the same weights:\n' +
                              '\n'.join(f'- {reason}' for reason in reasons))


def _reasons(runner: Any, state: CarriedState) -> Any:
    loader, loop = runner.train_dataloader, runner.train_loop
    by_iteration = hasattr(loop, 'dataloader_iterator')
    if getattr(loop, 'fast_forward_on_resume', False):
        yield 'train_cfg.fast_forward_on_resume=True begins the data anew.'
    if not by_iteration and any(isinstance(hook, CheckpointHook) and not hook.by_epoch for hook in runner.hooks):
        yield ('default_hooks.checkpoint.by_epoch=False saves within epochs, and mmengine begins the epoch anew; '
               'save by epoch.')
    in_workers, processes = loader.num_workers > 0, get_world_size()
    # In an epoch-based training every epoch starts new workers, so there is nothing to be saved at its end.
    if is_main_process() and is_map_style(loader) and (by_iteration if in_workers else processes > 1):
        carried = find_state_of_loading(loader)
        if carried and in_workers:
            yield (f'{_listed(carried)}: changes from image to image in the data workers, which no checkpoint sees; '
                   'train by epoch, or with train_dataloader.num_workers=0.')
        elif carried:
            yield f'{_listed(carried)}: changes from image to image, and only that of the first process is saved.'
    if processes > 1:
        generators = [name for name in state.own_generators() if not name.startswith(('sampler', 'batch_sampler'))]
        if generators:
            yield f'{_listed(generators)}: random generators, of which only that of the first process is saved.'
    iterators = [name for name in state.iterators if not name.startswith(('sampler', 'batch_sampler'))
                 and not (in_workers and name.startswith('dataset'))]
    if iterators:
        yield f'{_listed(iterators)}: iterators, whose position cannot be saved.'


def find_state_of_loading(loader: DataLoader) -> list[str]:
    """What loading an image changes for the next one, such as a cache; what is drawn for each image is not.

    A worker process loads the same image twice with the same random numbers: whatever was changed by the first time
    and changes again has kept something.

    Args:
        loader (DataLoader): Of the training.

    Returns:
        list[str]: Names of attributes, from the dataset on.
    """
    if not len(loader.dataset):  # type: ignore[arg-type]
        return []
    # In a process of its own, as open files must not be shared with the workers of the training.
    probe: DataLoader = DataLoader(_Probe(loader.dataset), batch_size=None, num_workers=1,
                                   generator=torch.Generator(), multiprocessing_context=loader.multiprocessing_context)
    return next(iter(probe))


class _Probe(Dataset):

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> list[str]:
        state = CarriedState({'dataset': self._dataset})
        found: set[str] = set()
        for number in range(_TRIES):
            seen = []
            for _ in range(2):
                random.seed(number)
                np.random.seed(number)
                torch.manual_seed(number)
                try:
                    self._dataset[number % len(self._dataset)]
                except Exception:  # noqa: BLE001 - the training itself will tell
                    return sorted(found)
                seen.append(state.changed())
            found.update(_differences(*seen))
        return sorted(found)


def _differences(first: tuple, second: tuple) -> set[str]:
    """Names of attributes that are not the same in two states."""
    objects = [{f'{path}.{name}': value for path, (_, _, attributes) in saved.items()
                for name, value in attributes.items()} for saved, _ in (first, second)]
    return {name for name in objects[0].keys() | objects[1].keys()
            if not same(objects[0].get(name), objects[1].get(name))} | set(second[1])


def _listed(names: list[str]) -> str:
    shown = ', '.join(names[:5])
    return shown if len(names) <= 5 else f'{shown} and {len(names) - 5} more'
