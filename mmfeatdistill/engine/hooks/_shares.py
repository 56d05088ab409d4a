"""What an objective amounts to among all losses of a training step, without waiting for the device."""
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, Optional, Protocol

import torch
from torch import Tensor, nn

from mmfeatdistill.objectives import Objective
from mmfeatdistill.objectives.logged import added_loss, task_loss


class Share(Protocol):
    """Measures single iterations."""

    def begin(self) -> None:
        """Gets ready before an iteration that is to be measured."""

    def end(self, outputs: Mapping[str, Any]) -> Optional[Tensor]:
        """Ends any iteration.

        Args:
            outputs (Mapping): The losses that it logs.

        Returns:
            Tensor: What falls to the objective, and all the rest; shape (2). None where this iteration was not to be
            measured, in all processes alike.
        """


class LossShare:
    """The losses of an objective, and the student's own.

    Args:
        name (str): Of the objective.
        objective (Objective): The same.
        names (Collection[str]): Of all objectives.
    """

    def __init__(self, name: str, objective: Objective, names: list[str]) -> None:
        self._name = name
        self._objective = objective
        self._names = names
        self._is_awaited = False

    def begin(self) -> None:
        """See :class:`Share`."""
        # An objective that a schedule has switched off has no loss.
        self._is_awaited = self._objective.weight != 0

    def end(self, outputs: Mapping[str, Any]) -> Optional[Tensor]:
        """See :class:`Share`."""
        if not self._is_awaited:
            return None
        self._is_awaited = False
        if self._objective.weight == 0:  # switched off in between, as the hook of a schedule runs later
            return None
        # Without the factor of a schedule, which is to have its effect.
        own = added_loss(outputs, self._name) / self._objective.weight
        return torch.stack([torch.as_tensor(own), torch.as_tensor(task_loss(outputs, self._names))]).detach()


class GradientShare:
    """The gradient of an objective at the student's features that it taps, and that of all other losses there.

    The former takes a backward pass of its own, from the objective to the features and no farther; the sum of the two
    comes by in the backward pass of the step.

    Args:
        objective (Objective): The objective.
        optim_wrapper (OptimWrapper): Knows by what a loss is multiplied before its backward pass.
    """

    def __init__(self, objective: Objective, optim_wrapper: Any) -> None:
        self._objective = objective
        self._optim_wrapper = optim_wrapper
        self._handle: Any = None
        self._found: list[Tensor] = []

    def begin(self) -> None:
        """See :class:`Share`."""
        self._handle, self._found = self._objective.register_forward_hook(self._follow), []

    def end(self, outputs: Mapping[str, Any]) -> Optional[Tensor]:
        """See :class:`Share`."""
        if self._handle is None:
            return None
        self._handle.remove()
        self._handle = None
        return torch.stack(self._found).sum(0) if self._found else torch.zeros(2)

    def _follow(self, objective: Objective, args: tuple, losses: Mapping[str, Tensor]) -> None:
        """Finds the gradient of the objective, and asks each feature for all that will arrive there."""
        # Tokens are tapped as views that only objectives see; the rest of the network reads what they are views of.
        features = [feature if feature._base is None else feature._base
                    for tap in objective.student_taps for feature in args[0][tap]]
        features = [feature for feature in dict.fromkeys(features) if feature.requires_grad]
        # As it will be multiplied, but for the factor of a schedule, which is to have its effect.
        total = sum((value * objective.factor_of(name) / objective.weight for name, value in losses.items()
                     if 'loss' in name), torch.zeros(()))
        if not features or not total.requires_grad:
            return
        own = torch.autograd.grad(self._as_in_backward(total), features, retain_graph=True, allow_unused=True)
        for feature, gradient in zip(features, own):
            if gradient is not None:
                feature.register_hook(partial(self._compare, gradient, objective.weight))

    def _as_in_backward(self, loss: Tensor) -> Tensor:
        """A loss over the accumulated steps, times the scale by which half precision avoids zeros."""
        loss = self._optim_wrapper.scale_loss(loss)
        scaler = getattr(self._optim_wrapper, 'loss_scaler', None)
        return loss if scaler is None else scaler.scale(loss)

    def _compare(self, own: Tensor, schedule: float, arriving: Tensor) -> None:
        self._found.append(torch.stack([_size(own), _size(arriving - own * schedule)]))


class PartShare:
    """The gradient of all losses on the parameters of a part of the student, and that on all its other parameters.

    It is seen where the optimizer sees it: after accumulation and averaging over processes, without a loss scale.

    Args:
        watched (Collection[nn.Parameter]): Of the part.
        others (Collection[nn.Parameter]): Of the student, without connectors: their gradient grows with the weight too.
        optimizer (torch.optim.Optimizer): Of all parameters.
        objective (Objective): While a schedule changes its factor, nothing is measured.
    """

    def __init__(self, watched: Collection[nn.Parameter], others: Collection[nn.Parameter],
                 optimizer: torch.optim.Optimizer, objective: Objective) -> None:
        self._parts = watched, others
        self._objective = objective
        self._is_awaited = False
        self._found: Optional[Tensor] = None
        optimizer.register_step_pre_hook(self._look)

    def begin(self) -> None:
        """See :class:`Share`; counts from the next step of the optimizer, which an accumulation may delay."""
        self._is_awaited = True

    def end(self, outputs: Mapping[str, Any]) -> Optional[Tensor]:
        """See :class:`Share`."""
        found, self._found = self._found, None
        return found

    @torch.no_grad()
    def _look(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        if not self._is_awaited or self._objective.weight != 1:
            return
        self._is_awaited = False
        sizes = [torch.stack([_size(p.grad) for p in part if p.grad is not None] or [torch.zeros(())]).sum()
                 for part in self._parts]
        self._found = torch.stack([size.to(sizes[0]) for size in sizes])


def _size(gradient: Tensor) -> Tensor:
    """The sum of absolute values."""
    return torch.linalg.vector_norm(gradient, 1, dtype=torch.float32)
