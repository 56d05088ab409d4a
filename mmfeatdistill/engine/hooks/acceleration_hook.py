"""Teachers that find out in a training what makes them cheaper."""
from typing import Any

import torch
from mmengine.hooks import Hook

from mmfeatdistill.engine.hooks._objectives import teachers_of
from mmfeatdistill.registry import HOOKS

_STATE = 'acceleration'
"""Where in ``meta`` of a checkpoint there is what each teacher has chosen."""


@HOOKS.register_module()
class AccelerationHook(Hook):
    """Lets teachers with ``acceleration='auto'`` look at the first batches, and keeps what they choose.

    A resumed training goes on with the same choice, as features differ by rounding; one that was begun without goes on
    without. Where ``randomness`` is ``deterministic``, teachers stay plain.
    """

    # After the statistics, which rest on the plain teacher.
    priority = 'LOW'

    def __init__(self) -> None:
        self._saved: Any = None

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Takes note of what the training that is resumed has chosen."""
        if runner._resume:
            self._saved = checkpoint.get('meta', {}).get(_STATE, [])

    def before_train(self, runner: Any) -> None:
        """Begins; weights are loaded and placed by now."""
        if torch.are_deterministic_algorithms_enabled():
            return
        for number, teacher in enumerate(teachers_of(runner.model)):
            if self._saved is None:
                teacher.start_training()
            elif number < len(self._saved) and self._saved[number] is not None:
                teacher.start_training(self._saved[number])

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Saves it."""
        states = [teacher.automatic and teacher.automatic.state() for teacher in teachers_of(runner.model)]
        if any(states):
            checkpoint.setdefault('meta', {})[_STATE] = states
