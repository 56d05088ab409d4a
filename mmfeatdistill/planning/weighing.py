"""Finding the weights of the objectives of a plan."""
import copy
from collections.abc import Callable, Mapping
from typing import Any, Optional

from mmengine.config import Config

from mmfeatdistill.checks.loss_balance import LossMeasurement, Weight, loss_weights, measure_losses, suggest_weights
from mmfeatdistill.errors import ConfigError

Objectives = Mapping[str, Any]

_UNFELT = 1e-6
"""Of a default: at such a weight the student learns as it would alone, while the loss is measured at first."""


def given_weights(objectives: Objectives, value: Optional[float] = None) -> list[Weight]:
    """The weights of all objectives.

    Args:
        objectives (dict[str, dict]): As a config has them.
        value (float, optional): In place of what they are. Defaults to None.

    Returns:
        list[Weight]: By config key.
    """
    return [Weight(weight.key, weight.value if value is None else value)
            for name, objective in objectives.items() for weight in loss_weights(objective, f'model.objectives.{name}')]


def with_weights(objectives: Objectives, weights: list[Weight]) -> dict[str, Any]:
    """A copy of objectives with other weights.

    Args:
        objectives (dict[str, dict]): As a config has them.
        weights (list[Weight]): By config key.

    Returns:
        dict[str, dict]: The copy.

    Examples:
        >>> with_weights(dict(ofd=dict(type='OFD')), [Weight('model.objectives.ofd.loss_weight', 2.0)])
        {'ofd': {'type': 'OFD', 'loss_weight': 2.0}}
    """
    changed = copy.deepcopy(dict(objectives))
    for weight in weights:
        *path, option = weight.key.split('.')[2:]
        inner = changed
        for name in path:
            inner = inner[name]
        inner[option] = weight.value
    return changed


def weigh(objectives: Objectives, ratio: float, load: Callable[[Objectives], Config],
          first: Callable[[Config], LossMeasurement], iterations: int) -> tuple[dict[str, Any], str]:
    """Finds the weights at which each objective's loss is in a given ratio to the student's own.

    It is measured twice: at a weight that the student does not feel, and over some iterations at the weight that
    follows, as the connectors learn in these.

    Args:
        objectives (dict[str, dict]): As a config has them.
        ratio (float): Loss of an objective over the student's own.
        load (Callable): The config with other objectives.
        first (Callable): Measures the losses of a config for the first time.
        iterations (int): Of the second measurement; 0 for none.

    Returns:
        tuple[dict[str, dict], str]: The objectives with their weights, and what was measured, for people.

    Raises:
        ConfigError: A weight cannot be found.
    """
    unfelt = [Weight(weight.key, weight.value * _UNFELT) for weight in given_weights(objectives)]
    found = with_weights(objectives, unfelt)
    measured = first(load(found))
    found, said = _balanced(load(found), found, measured, ratio)
    if iterations:
        cfg = load(found)
        found, said = _balanced(cfg, found, measure_losses(cfg, iterations), ratio)
    return found, said


def _balanced(cfg: Config, objectives: Objectives, measured: LossMeasurement,
              ratio: float) -> tuple[dict[str, Any], str]:
    said = []
    for suggestion in suggest_weights(cfg, measured, ratio):
        if suggestion.problem:
            raise ConfigError(f'--weight: none can be found for {suggestion.objective}, as {suggestion.problem}; give '
                              'one.')
        objectives = with_weights(objectives, list(suggestion.suggested))
        listed = ', '.join(f'{weight.key.removeprefix("model.objectives.")}={weight.value:g}'
                           for weight in suggestion.suggested)
        said.append(f"{listed}: the loss is then {ratio:g} times the student's own, {measured.task:.3g}")
    return dict(objectives), '; '.join(said)
