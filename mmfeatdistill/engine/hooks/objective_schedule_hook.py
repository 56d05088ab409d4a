"""Changing the weight of an objective over the training."""
import math
from typing import Any, Literal, Optional

from mmengine.hooks import Hook

from mmfeatdistill.engine.hooks._objectives import find_objective
from mmfeatdistill.errors import ConfigError, did_you_mean
from mmfeatdistill.registry import HOOKS


def schedule_factor(step: int, *, warmup: int = 0, decay_begin: Optional[int] = None,
                    stop: Optional[int] = None, decay: Literal['linear', 'cosine'] = 'linear') -> float:
    r"""The factor of an objective's losses at a step.

    It rises linearly, :math:`\min(1, (k + 1) / \mathrm{warmup})`; it falls from 1 at ``decay_begin`` to
    0 at ``stop``; it is 0 from ``stop`` on.

    Args:
        step (int): Iterations or epochs done, :math:`k`.
        warmup (int): Steps of the rise. Defaults to 0: none.
        decay_begin (int, optional): First step of the fall. Defaults to None: none.
        stop (int, optional): First step without the objective. Defaults to None: never.
        decay (str): ``'linear'`` or ``'cosine'``. Defaults to ``'linear'``.

    Returns:
        float: Between 0 and 1.

    Examples:
        >>> [schedule_factor(k, warmup=4, decay_begin=6, stop=8) for k in range(9)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0]
    """
    if stop is not None and step >= stop:
        return 0.0
    factor = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if decay_begin is not None and stop is not None and step > decay_begin:
        progress = (step - decay_begin) / (stop - decay_begin)
        factor *= 1 - progress if decay == 'linear' else (1 + math.cos(math.pi * progress)) / 2
    return factor


@HOOKS.register_module()
class ObjectiveScheduleHook(Hook):
    """Warm-up, decay and stop of one objective, or of one of its losses; several hooks schedule several.

    The factor (see :func:`schedule_factor`) multiplies all losses of the objective, or the named one. While that of an
    objective is 0 it is off; once all objectives are off, no teacher runs. It depends on the iteration alone, so
    resuming continues it exactly.

    Args:
        objective (str): Its name in ``model.objectives``.
        warmup (int): Steps of the rise. Defaults to 0.
        decay_begin (int, optional): First step of the fall; needs ``stop``. Defaults to None.
        stop (int, optional): First step without the objective. Defaults to None.
        decay (str): ``'linear'`` or ``'cosine'``. Defaults to ``'linear'``.
        by_epoch (bool): Whether steps are epochs or iterations. Defaults to True.
        loss (str, optional): One of its losses, as it is logged after the objective's name: ``'loss_appearance'``.
            Defaults to None: all of them.

    Raises:
        ConfigError: Steps that contradict each other, no such objective, or no such loss.
    """

    def __init__(self, objective: str, warmup: int = 0, decay_begin: Optional[int] = None,
                 stop: Optional[int] = None, decay: Literal['linear', 'cosine'] = 'linear',
                 by_epoch: bool = True, loss: Optional[str] = None) -> None:
        key = f'custom_hooks.ObjectiveScheduleHook({objective!r})'
        if decay not in ('linear', 'cosine'):
            raise ConfigError(f"{key}.decay: expected 'linear' or 'cosine', got {decay!r}.")
        if not isinstance(by_epoch, bool):
            raise ConfigError(f'{key}.by_epoch: expected True or False, got {by_epoch!r}.')
        for name, value in (('warmup', warmup), ('decay_begin', decay_begin), ('stop', stop)):
            if value is not None and (not isinstance(value, int) or value < 0):
                raise ConfigError(f'{key}.{name}: expected a number of steps, got {value!r}.')
        if decay_begin is not None and (stop is None or stop <= decay_begin):
            raise ConfigError(f'{key}.stop: the decay that begins at {decay_begin} needs a later stop, '
                              f'got {stop}.')
        self.objective = objective
        self.by_epoch = by_epoch
        self.loss = loss
        self._schedule: dict[str, Any] = dict(warmup=warmup, decay_begin=decay_begin, stop=stop, decay=decay)

    def before_train(self, runner: Any) -> None:
        """Finds the objective.

        Raises:
            ConfigError: There is no such objective, there are no epochs to count, or another hook schedules the same.
        """
        key = f'custom_hooks.ObjectiveScheduleHook({self.objective!r})'
        self._found = find_objective(runner, self.objective, self.by_epoch, key)
        same = [hook for hook in runner.hooks if isinstance(hook, ObjectiveScheduleHook)
                and (hook.objective, hook.loss) == (self.objective, self.loss)]
        if len(same) > 1:
            what = 'it' if self.loss is None else f'its {self.loss!r}'
            raise ConfigError(f'{key}: there are {len(same)} that schedule {what}, of which only the last would count; '
                              'give warmup, decay_begin and stop to one.')

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Sets the factor for this iteration."""
        step = runner.epoch if self.by_epoch else runner.iter
        factor = schedule_factor(step, **self._schedule)
        if self.loss is None:
            self._found.weight = factor
        else:
            self._found.factors[self.loss] = factor

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                         outputs: Optional[dict] = None) -> None:
        """Sees whether the scheduled loss is one that the objective computes.

        Raises:
            ConfigError: It is not.
        """
        losses = [name.partition('.')[2] for name in outputs or {} if name.startswith(f'{self.objective}.')]
        if self.loss is not None and losses and self.loss not in losses:
            key = f'custom_hooks.ObjectiveScheduleHook({self.objective!r}).loss'
            raise ConfigError(f'{key}: there is no {self.loss!r}; {self.objective!r} logs {losses}'
                              f'{did_you_mean(self.loss, losses)}')
