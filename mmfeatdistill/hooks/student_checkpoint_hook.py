"""Keeps what distillation adds out of the student's checkpoint, and beside it for resuming."""
from typing import Any

from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from torch import nn

from mmfeatdistill.distillers.feature_distiller import ADDED
from mmfeatdistill.hooks.whole_files import write_whole_files
from mmfeatdistill.registry import HOOKS

_LAYOUT = {'state_dict': f'{ADDED}.', 'ema_state_dict': f'module.{ADDED}.'}
"""Where added tensors are in a checkpoint in memory, by the name that they begin with."""


@HOOKS.register_module()
class StudentCheckpointHook(Hook):
    """Makes every saved file the student's own checkpoint.

    On saving, the entries ``distiller.*`` move from ``state_dict`` and ``ema_state_dict`` to a key of
    their own, ``distiller``; so the file loads in the stock student config with nothing missing and
    nothing unexpected. On resuming they move back. On loading without resuming, the distiller keeps its
    fresh connectors. Checkpoints on a local disk are written whole: a killed training leaves none that is broken.
    """

    # Before EMAHook, which reads both state dicts on loading.
    priority = 'VERY_HIGH'

    def before_run(self, runner: Any) -> None:
        """Registers the half that acts after EMAHook on saving, and lets files be written whole.

        Args:
            runner (Runner): The runner; mmengine has one priority order for saving and loading.
        """
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook):
                write_whole_files(hook, str(hook.out_dir or runner.work_dir))
        if not any(isinstance(hook, _MoveAsideHook) for hook in runner.hooks):
            runner.register_hook(_MoveAsideHook(), priority='VERY_LOW')

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Puts the added entries back before anything reads the state dicts.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): Was loaded.
        """
        saved = checkpoint.pop(ADDED, None) if runner._resume else None
        for name, prefix in _LAYOUT.items():
            if name in checkpoint:
                checkpoint[name].update(saved[name] if saved else _current(runner.model, prefix))


class _MoveAsideHook(Hook):
    """The saving half of :class:`StudentCheckpointHook`."""

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Moves added entries beside the student's."""
        added = {name: _take(checkpoint[name], prefix) for name, prefix in _LAYOUT.items()
                 if name in checkpoint}
        if any(added.values()):
            checkpoint[ADDED] = added


def _take(state_dict: dict, prefix: str) -> dict:
    """Removes the entries that begin with a prefix, and returns them."""
    taken = {key: state_dict.pop(key) for key in list(state_dict) if key.startswith(prefix)}
    metadata = getattr(state_dict, '_metadata', {})
    for key in list(metadata):
        if f'{key}.'.startswith(prefix):
            del metadata[key]
    return taken


def _current(model: nn.Module, prefix: str) -> dict:
    """The added entries as they are now."""
    model = model.module if is_model_wrapper(model) else model
    added = model._modules.get(ADDED)
    return {} if added is None else {
        f'{prefix}{key}': value.detach().clone() for key, value in added.state_dict().items()}
