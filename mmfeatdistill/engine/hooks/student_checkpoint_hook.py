"""Keeps what distillation adds out of the student's checkpoint, and next to it for resuming."""
import errno
import os.path as osp
from typing import Any

from mmengine import dist
from mmengine.hooks import CheckpointHook, Hook
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from mmfeatdistill.atomic_files import remove_leftovers
from mmfeatdistill.checkpoints.atomic_backend import (
    checkpoint_folder,
    device_of,
    repair_last_checkpoint,
    write_atomically,
)
from mmfeatdistill.checkpoints.safe_load import read_checkpoint_file
from mmfeatdistill.distillers.building import ADDED
from mmfeatdistill.engine.hooks._objectives import objectives_of, unwrap
from mmfeatdistill.errors import ConfigError, config_key
from mmfeatdistill.registry import HOOKS

_LAYOUT = {'state_dict': f'{ADDED}.', 'ema_state_dict': f'module.{ADDED}.'}
"""Where added tensors are in a checkpoint in memory, by the name that they begin with."""


@HOOKS.register_module()
class StudentCheckpointHook(Hook):
    """Makes every saved file the student's own checkpoint.

    On saving, the entries ``distiller.*`` move from ``state_dict`` and ``ema_state_dict`` to a key of
    their own, ``distiller``; so the file loads in the stock student config with nothing missing and
    nothing unexpected. On resuming they move back. On loading without resuming, the distiller keeps its
    fresh connectors. Checkpoints on a local disk are written atomically: a killed training leaves none that is broken,
    keeps the one before until the next is there, and is resumed from the last that is complete.

    Args:
        weights_only (bool): Whether a file of ``load_from`` that holds more than tensors and plain data is refused
            before mmengine loads it, which would run code in it. Defaults to True.

    Raises:
        ConfigError: The file of ``load_from`` is refused, or cannot be read.
        CheckpointError: A training is resumed of which no checkpoint can be read any more.
    """

    # Before EMAHook, which reads both state dicts on loading.
    priority = 'VERY_HIGH'

    def __init__(self, weights_only: bool = True) -> None:
        self.weights_only = weights_only
        self._devices: dict[str, int] = {}

    def before_run(self, runner: Any) -> None:
        """Registers what acts after EMAHook on saving, lets files be written atomically, checks what is loaded.

        Args:
            runner (Runner): The runner; mmengine has one priority order for saving and loading.
        """
        for hook in _checkpoint_hooks(runner):
            write_atomically(hook, checkpoint_folder(hook, runner.work_dir))
            if runner._resume and runner._load_from is None and dist.is_main_process():
                repair_last_checkpoint(runner.work_dir, checkpoint_folder(hook, runner.work_dir), hook.filename_tmpl)
        dist.barrier()
        if runner._load_from is not None and self.weights_only and not osp.isdir(runner._load_from):
            with config_key('load_from'):
                read_checkpoint_file(runner._load_from)
        if not any(isinstance(hook, _MoveAsideHook) for hook in runner.hooks):
            runner.register_hook(_MoveAsideHook(), priority='VERY_LOW')

    def before_train(self, runner: Any) -> None:
        """Removes what a killed training has left half-written; not before, as one may be running that is tested."""
        for hook in _checkpoint_hooks(runner) if dist.is_main_process() else []:
            folder = checkpoint_folder(hook, runner.work_dir)
            remove_leftovers(folder)
            if '://' not in folder:
                self._devices[folder] = device_of(folder)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Refuses to save where a disk was unmounted; the file would be hidden by the disk when that is back.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): Will be saved.

        Raises:
            FileNotFoundError: The folder of the checkpoints is no longer on the disk on which it was.
        """
        for folder, device in self._devices.items():
            if device_of(folder) != device:
                raise FileNotFoundError(errno.ENOENT, 'its file system is no longer mounted', folder)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Puts the added entries back before anything reads the state dicts.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): Was loaded.

        Raises:
            ConfigError: A training is resumed with other connectors or statistics than it had.
        """
        saved = checkpoint.pop(ADDED, None) if runner._resume else None
        if saved and not isinstance(runner.model, FullyShardedDataParallel):  # of which no process sees all
            _check_same(saved['state_dict'], runner.model)
        for name, prefix in _LAYOUT.items():
            if name in checkpoint:
                checkpoint[name].update(saved[name] if saved else _current(runner.model, prefix))


class _MoveAsideHook(Hook):
    """The saving half of :class:`StudentCheckpointHook`."""

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Moves added entries next to the student's."""
        state_dict = checkpoint['state_dict']
        if all(name.startswith('module.') for name in state_dict):  # so mmengine's DDPStrategy gives them
            consume_prefix_in_state_dict_if_present(state_dict, 'module.')
        added = {name: _take(checkpoint[name], prefix) for name, prefix in _LAYOUT.items()
                 if name in checkpoint}
        if any(added.values()):
            checkpoint[ADDED] = added


def _checkpoint_hooks(runner: Any) -> list[CheckpointHook]:
    return [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]


def _take(state_dict: dict, prefix: str) -> dict:
    """Removes the entries that begin with a prefix, and returns them."""
    taken = {key: state_dict.pop(key) for key in list(state_dict) if key.startswith(prefix)}
    metadata = getattr(state_dict, '_metadata', {})
    for key in list(metadata):
        if f'{key}.'.startswith(prefix):
            del metadata[key]
    return taken


def _check_same(saved: dict, model: nn.Module) -> None:
    """Refuses what the optimizer would fail on later, with a message about a number of parameters."""
    prefix, names = _LAYOUT['state_dict'], list(objectives_of(model))
    before, now = ({key.removeprefix(prefix): list(value.shape) for key, value in tensors.items()}
                   for tensors in (saved, _current(model, prefix)))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            index, _, rest = key.partition('.')
            name = f'model.objectives.{names[int(index)]}' if int(index) < len(names) else 'a further objective'
            raise ConfigError(f'resume: the checkpoint was trained with other objectives. Of {name}, {rest!r} has the '
                              f'shape {before.get(key)} there and {now.get(key)} here. Resume with the objectives that '
                              'it had, or train from its student, by load_from instead of resume.')


def _current(model: nn.Module, prefix: str) -> dict:
    """The added entries as they are now."""
    added = unwrap(model)._modules.get(ADDED)
    return {} if added is None else {
        f'{prefix}{key}': value.detach().clone() for key, value in added.state_dict().items()}
