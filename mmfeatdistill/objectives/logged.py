"""Reading logged losses: what is the student's own, and what an objective added."""
from collections.abc import Collection, Mapping
from typing import Any


def losses_of(losses: Mapping[str, Any], objective: str) -> dict[str, Any]:
    """The losses of an objective, by the names that it gives them.

    Args:
        losses (Mapping): Logged losses by name, tensors or numbers.
        objective (str): Its name.

    Returns:
        dict[str, Any]: Tensors or numbers, as logged.

    Examples:
        >>> losses_of({'loss': 3.0, 'fpn.loss_0': 0.5, 'fpn.share': 0.1}, 'fpn')
        {'loss_0': 0.5}
    """
    return {name.removeprefix(f'{objective}.'): value for name, value in losses.items()
            if name.startswith(f'{objective}.loss')}


def added_loss(losses: Mapping[str, Any], objective: str) -> Any:
    """The sum of the losses of an objective.

    Args:
        losses (Mapping): Logged losses by name, tensors or numbers.
        objective (str): Its name.

    Returns:
        Tensor | float: 0 if it logged none.

    Examples:
        >>> added_loss({'loss': 3.0, 'fpn.loss_0': 0.5, 'fpn.loss_1': 0.25}, 'fpn')
        0.75
    """
    return sum(losses_of(losses, objective).values())


def task_loss(losses: Mapping[str, Any], objectives: Collection[str]) -> Any:
    """The student's own loss, without what objectives added.

    Args:
        losses (Mapping): Logged losses by name, tensors or numbers.
        objectives (Collection[str]): Names of all objectives.

    Returns:
        Tensor | float: The sum of the student's own losses. A student with one loss named ``loss``, as
        mmpretrain's, hides mmengine's total of the same name in the log; then it is that.

    Examples:
        >>> task_loss({'loss': 3.0, 'loss_cls': 2.0, 'fpn.loss_0': 1.0}, ['fpn'])
        2.0
        >>> task_loss({'loss': 2.0, 'backbone.loss_0': 1.0}, ['backbone'])
        2.0
    """
    own = [value for name, value in losses.items() if 'loss' in name and name != 'loss'
           and not any(name.startswith(f'{objective}.') for objective in objectives)]
    return sum(own) if own else losses['loss']
