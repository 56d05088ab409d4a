"""Holding the share of an objective among all losses in a band."""
from typing import Any, Literal, Optional

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.optim import ApexOptimWrapper, OptimWrapper, OptimWrapperDict
from torch import Tensor

from mmfeatdistill.distillers.building import ADDED
from mmfeatdistill.engine.hooks._objectives import find_objective, objectives_of, unwrap
from mmfeatdistill.engine.hooks._shares import GradientShare, LossShare, PartShare, Share
from mmfeatdistill.errors import ConfigError, did_you_mean
from mmfeatdistill.registry import HOOKS

_EVERY = 10
"""Iterations between two measurements."""


def balanced_weight(weight: float, share: float, *, target: float, tolerance: float, default: float = 1.0) -> float:
    r"""The weight that brings the share of a loss back into a band, if it has left it.

    .. math:: w' = w \cdot \mathrm{clip}\left( \frac{q / (1 - q)}{p / (1 - p)},\ 0.1,\ 10 \right), \qquad
        q = \begin{cases} \rho + \delta & p < \rho - \delta \\ \rho - \delta & p > \rho + \delta \end{cases}

    Within the band the weight stays. The odds of a share are proportional to the weight where the rest does not depend
    on it, so that one change leads to the opposite edge of the band. Gradient-guided adaptive modulation, the rule of
    RT-DETRv4 (arXiv 2510.25257) and its authors' code.

    Args:
        weight (float): The weight so far, :math:`w`.
        share (float): What was measured with it, :math:`p`, from 0 to 1.
        target (float): The middle of the band, :math:`\rho`.
        tolerance (float): Half its width, :math:`\delta`.
        default (float): What the weight becomes where there is no share that a factor could change. Defaults to 1.

    Returns:
        float: The weight from now on.

    Examples:
        >>> round(balanced_weight(1.0, 0.5, target=0.2, tolerance=0.1), 3)  # odds of 1 become odds of 1 to 9
        0.111
        >>> balanced_weight(1.0, 0.25, target=0.2, tolerance=0.1), balanced_weight(4.0, 0.0, target=0.2, tolerance=0.1)
        (1.0, 1.0)
    """
    if share <= 0:
        return default
    if target - tolerance <= share <= target + tolerance:
        return weight
    wanted = target + tolerance if share < target else target - tolerance
    ratio = wanted * (1 - share) / ((1 - wanted) * share)
    return weight * min(max(ratio, 0.1), 10.0)


@HOOKS.register_module()
class BalanceHook(Hook):
    r"""Finds and adapts the weight of an objective by the share that it is to have.

    In every tenth iteration the share :math:`p` of the objective is measured and averaged over processes. Every
    ``interval`` its mean is compared with the band :math:`\rho \pm \delta`; outside, a factor of all losses of the
    objective changes as :func:`balanced_weight` says. The factor begins at 1 and multiplies what the config and an
    :class:`ObjectiveScheduleHook` give: a schedule of the same objective keeps its effect, as the share is measured as
    if its factor were 1. Logged as ``<objective>.share`` and ``<objective>.balance``. The factor and what was
    measured since the last comparison are saved with the training, and resumed.

    With ``measure='gradient'`` the share is :math:`|g| / (|g| + |r|)`: the sums of absolute values of the gradient of
    the objective, and of that of all other losses, at the student's features that the objective taps. With
    ``measure='loss'`` it is that of the objective's losses in the sum with the student's own. With ``watch``, as the
    authors have it, it is the share that falls on a part of the student in the gradient of all losses on the student's
    parameters; nothing is measured then while a schedule is not at 1. The authors' sum has their projection in it,
    one linear layer; connectors are left out here.

    Args:
        objective (str): Its name in ``model.objectives``.
        share (float): The share that it is to have, :math:`\rho`, between 0 and 1.
        tolerance (float, optional): Half the width of the band, :math:`\delta`. Defaults to None: a tenth of ``share``.
        measure (str): ``'gradient'`` or ``'loss'``. Defaults to ``'gradient'``.
        watch (str, optional): A module of the student, such as ``'encoder'``. Defaults to None: no part.
        interval (int): Steps between two comparisons. Defaults to 100.
        stop (int, optional): First step from which the factor is 1 again, as in the authors' last epochs without strong
            augmentation. Defaults to None: never.
        by_epoch (bool): Whether steps are epochs, as the authors', or iterations. Defaults to False.

    Raises:
        ConfigError: No such band, objective or part; a second such hook of the objective; gradients that cannot be
            compared.
    """

    # After RuntimeInfoHook, which waits for the losses, and before LoggerHook, which reads the message hub.
    priority = 'ABOVE_NORMAL'

    def __init__(self, objective: str, share: float, tolerance: Optional[float] = None,
                 measure: Literal['gradient', 'loss'] = 'gradient', watch: Optional[str] = None,
                 interval: int = 100, stop: Optional[int] = None, by_epoch: bool = False) -> None:
        self._key = key = f'custom_hooks.BalanceHook({objective!r})'
        if not _is_number(share) or not 0 < share < 1:
            raise ConfigError(f'{key}.share: expected a number between 0 and 1, got {share!r}.')
        tolerance = share / 10 if tolerance is None else tolerance
        if not _is_number(tolerance) or not 0 <= tolerance < min(share, 1 - share):
            raise ConfigError(f'{key}.tolerance: the band {share} +- {tolerance!r} has to lie between 0 and 1.')
        if measure not in ('gradient', 'loss'):
            raise ConfigError(f"{key}.measure: expected 'gradient' or 'loss', got {measure!r}.")
        if watch is not None and measure != 'gradient':
            raise ConfigError(f"{key}.watch: the gradient on a part of the student is watched; leave out "
                              f'measure={measure!r}, or watch.')
        if not isinstance(by_epoch, bool):
            raise ConfigError(f'{key}.by_epoch: expected True or False, got {by_epoch!r}.')
        for name, value in dict(interval=interval, stop=stop).items():
            if not (isinstance(value, int) and value > 0 or name == 'stop' and value is None):
                raise ConfigError(f'{key}.{name}: expected a positive number of steps, got {value!r}.')
        self.objective = objective
        self.share = share
        self.tolerance = tolerance
        self.measure = measure
        self.watch = watch
        self.interval = interval
        self.stop = stop
        self.by_epoch = by_epoch

    def before_run(self, runner: Any) -> None:
        """Forgets what another training of this process may have left, before a checkpoint is loaded."""
        runner.message_hub.pop_info(self._info)

    def before_train(self, runner: Any) -> None:
        """Finds the objective, and goes on where a resumed training was.

        Raises:
            ConfigError: See above.
        """
        self._found = find_objective(runner, self.objective, self.by_epoch, self._key)
        objectives = objectives_of(runner.model)
        if sum(isinstance(hook, BalanceHook) and hook.objective == self.objective for hook in runner.hooks) > 1:
            raise ConfigError(f'{self._key}: there are several of this objective; leave one.')
        if not unwrap(runner.model).trains_task and (self.measure == 'loss' or len(objectives) == 1):
            raise ConfigError(f'{self._key}: {type(unwrap(runner.model)).__name__} computes no loss of a task, beside '
                              'which the objective could have a share; leave the hook out, or let it balance several '
                              "objectives with measure='gradient'.")
        self._share = self._measured_by(runner, list(objectives))
        # A tensor, so that no iteration waits for what was measured.
        device = next(runner.model.parameters()).device
        state = runner.message_hub.get_info(self._info) or dict(balance=1.0, seen=torch.zeros(2))
        self._found.balance = state['balance']
        self._seen: Tensor = state['seen'].to(device)  # sum and number of what was measured since the last comparison
        self._note(runner)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Prepares to measure some iterations."""
        step = runner.epoch if self.by_epoch else runner.iter
        if (runner.iter + 1) % _EVERY == 0 and (self.stop is None or step < self.stop):
            self._share.begin()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                         outputs: Optional[dict] = None) -> None:
        """Measures, and compares where the interval ends."""
        found = self._share.end(outputs or {})
        if found is not None:
            found = found.to(self._seen)
            all_reduce(found, 'mean')
            # No number where nothing was measured, or where a loss scale was too large for either of the two.
            share = (found[0] / found.sum()).where(found.isfinite().all(), torch.nan)
            self._seen += torch.stack([share.nan_to_num(0, 0, 0), share.isfinite().to(share)])
        if not self.by_epoch:
            self._end_step(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Any) -> None:
        """Compares where the interval ends."""
        if self.by_epoch:
            self._end_step(runner, runner.epoch + 1)

    def _end_step(self, runner: Any, step: int) -> None:
        if self.stop is not None and step >= self.stop:
            self._set(runner, 1.0, 'as its last phase has begun')
        elif step % self.interval == 0:
            total, count = self._seen.tolist()
            self._seen.zero_()
            if count:
                self._compare(runner, total / count)

    def _compare(self, runner: Any, share: float) -> None:
        weight = balanced_weight(self._found.balance, share, target=self.share, tolerance=self.tolerance)
        # What was measured with the factor so far, and the factor from now on.
        runner.message_hub.update_scalar(f'train/{self.objective}.share', share)
        band = f'{self.share:.3g} +- {self.tolerance:.3g}'
        self._set(runner, weight, f'as its share was {share:.3g}, and is to be {band}')
        runner.message_hub.update_scalar(f'train/{self.objective}.balance', weight)

    def _set(self, runner: Any, weight: float, reason: str) -> None:
        if weight != self._found.balance:
            runner.logger.info(
                f'model.objectives.{self.objective}: its losses are multiplied by {weight:.3g} from now on, {reason}.')
            self._found.balance = weight
            self._note(runner)

    @property
    def _info(self) -> str:
        return f'balance/{self.objective}'

    def _note(self, runner: Any) -> None:
        """Puts the state where mmengine saves it; of the tensor, a copy of what it holds then."""
        runner.message_hub.update_info(self._info, dict(balance=self._found.balance, seen=self._seen))

    def _measured_by(self, runner: Any, names: list[str]) -> Share:
        if self.measure == 'loss':
            return LossShare(self.objective, self._found, names)
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, OptimWrapper) or isinstance(wrapper, (ApexOptimWrapper, OptimWrapperDict)):
            raise ConfigError(f"{self._key}.measure: gradients can be compared with mmengine's OptimWrapper and "
                              f"AmpOptimWrapper, got optim_wrapper.type={type(wrapper).__name__!r}; use "
                              "measure='loss'.")
        if self.watch is None:
            return GradientShare(self._found, wrapper)
        model = unwrap(runner.model)
        parts = [name for name, _ in model.named_modules() if name and not name.startswith(ADDED)]
        if self.watch not in parts:
            raise ConfigError(f'{self._key}.watch: the student has no module {self.watch!r}'
                              f'{did_you_mean(self.watch, parts)}')
        watched = [parameter for parameter in model.get_submodule(self.watch).parameters() if parameter.requires_grad]
        if not watched:
            raise ConfigError(f'{self._key}.watch: {self.watch!r} has no parameters that are trained.')
        others = [parameter for name, parameter in model.named_parameters()
                  if not name.startswith(f'{ADDED}.') and id(parameter) not in set(map(id, watched))]
        return PartShare(watched, others, wrapper.optimizer, self._found)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
