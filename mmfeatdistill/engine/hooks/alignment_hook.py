"""How far the student's features have come, in numbers."""
from collections.abc import Mapping
from functools import partial
from typing import Any, Optional

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce_dict
from mmengine.hooks import Hook
from torch import Tensor, nn

from mmfeatdistill.engine.hooks._objectives import objectives_of
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.objectives.logged import added_loss, task_loss
from mmfeatdistill.registry import HOOKS
from mmfeatdistill.taps.feature_map import as_map

_MAX_POSITIONS = 4096
"""Positions that enter a metric; more would change it little and cost more."""


def cosine_similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean cosine of the angle between the two vectors of each row.

    Args:
        student (Tensor): Shape (P, C).
        teacher (Tensor): Shape (P, C).

    Returns:
        Tensor: Scalar between -1 and 1.

    Examples:
        >>> cosine_similarity(torch.eye(3), 2 * torch.eye(3))
        tensor(1.)
    """
    return F.cosine_similarity(student, teacher, dim=1).mean()


def linear_cka(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Linear centered kernel alignment of two sets of features.

    .. math:: \frac{\|T^\top S\|_F^2}{\|S^\top S\|_F \, \|T^\top T\|_F}

    with the columns centered (Kornblith et al., arXiv 1905.00414, section 3). It ignores rotations and
    the scale of either side, and widths may differ.

    Args:
        student (Tensor): Shape (P, C_s).
        teacher (Tensor): Shape (P, C_t).

    Returns:
        Tensor: Scalar between 0 and 1.

    Examples:
        >>> features = torch.tensor([[1., 0.], [0., 1.], [2., 2.]])
        >>> round(linear_cka(features, -3 * features).item(), 4)
        1.0
    """
    student, teacher = student - student.mean(0), teacher - teacher.mean(0)
    cross = (teacher.T @ student).norm() ** 2
    return cross / ((student.T @ student).norm() * (teacher.T @ teacher).norm()).clamp_min(1e-12)


@HOOKS.register_module()
class AlignmentHook(Hook):
    """Logs how well the matched features agree, and how the losses compare.

    For every pair of features that a loss of an objective compares: ``<objective>.cosine_<i>`` and
    ``<objective>.cka_<i>``; for every objective: ``<objective>.ratio_to_task``, its losses over the
    student's own. They go through mmengine's message hub, so that every visualization backend and the
    text log show them. Averaged over processes.

    Args:
        interval (int): Iterations between two measurements. Defaults to 50.

    Raises:
        ConfigError: ``interval`` is no positive number.
    """

    # Before LoggerHook, which reads the message hub in the same stage.
    priority = 'ABOVE_NORMAL'

    def __init__(self, interval: int = 50) -> None:
        if not isinstance(interval, int) or interval < 1:
            raise ConfigError(f'custom_hooks.AlignmentHook.interval: expected a positive number of iterations, got '
                              f'{interval!r}.')
        self.interval = interval
        self._pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._handles: list[Any] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Starts listening to the losses, in the iterations that are measured."""
        objectives = objectives_of(runner.model)
        if not objectives or not self.every_n_train_iters(runner, self.interval):
            return
        for name, objective in objectives.items():
            loss = getattr(objective, 'loss', None)
            if isinstance(loss, nn.Module):
                self._pairs[name] = []
                self._handles.append(loss.register_forward_hook(partial(_keep_pair, self._pairs[name])))

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                         outputs: Optional[Mapping] = None) -> None:
        """Measures the pairs of this iteration, and logs them."""
        if not self._handles:
            return
        for handle in self._handles:
            handle.remove()
        metrics = self._measure(outputs or {}, list(objectives_of(runner.model)))
        self._handles, self._pairs = [], {}
        all_reduce_dict(metrics, op='mean')
        for name, value in metrics.items():
            runner.message_hub.update_scalar(f'train/{name}', float(value))

    @torch.no_grad()
    def _measure(self, losses: Mapping[str, Tensor], objectives: list[str]) -> dict[str, Tensor]:
        task = task_loss(losses, objectives)
        metrics = {f'{name}.ratio_to_task': torch.as_tensor(added_loss(losses, name) / task) for name in objectives}
        for name, pairs in self._pairs.items():
            for index, pair in enumerate(pairs):
                student, teacher = (_positions(feature) for feature in pair)
                if student.shape == teacher.shape:  # losses that need no connector take features of other widths
                    metrics[f'{name}.cosine_{index}'] = cosine_similarity(student, teacher)
                metrics[f'{name}.cka_{index}'] = linear_cka(student, teacher)
        return metrics


def _keep_pair(pairs: list, module: nn.Module, args: tuple, output: Any) -> None:
    pairs.append((args[0].detach(), args[1].detach()))


def _positions(feature: Tensor) -> Tensor:
    """Evenly spaced positions of a batch of maps as rows, shape (P, C)."""
    rows = as_map(feature).permute(0, 2, 3, 1).flatten(0, 2)
    return rows[::max(1, -(-rows.shape[0] // _MAX_POSITIONS))].float()
