"""Options of a runner that replace how modules of the student run, held against what is tapped."""
from collections.abc import Mapping
from typing import Any

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.objectives import Objective


def check_runner_options(cfg: Mapping, objectives: Mapping[str, Objective]) -> None:
    """Refuses taps that options of the runner put out of reach.

    Args:
        cfg (Config): Of the training.
        objectives (Mapping[str, Objective]): By name.

    Raises:
        ConfigError: Names the option, the tap, and what would do.
    """
    for name, objective in objectives.items():
        for tap in (pair.student for pair in objective.taps):
            key = f'model.objectives.{name}.taps'
            for module in _modules(cfg.get('efficient_conv_bn_eval')):
                if tap.place.path.startswith(f'{module}.'):
                    raise ConfigError(
                        f'{key}: {tap.text!r} is inside of {module!r}, which efficient_conv_bn_eval runs as one traced '
                        f'graph without calling its modules; tap {module!r} itself, or leave the option out.')
            for module in _modules(cfg.get('activation_checkpointing')):
                if f'{tap.place.path}.'.startswith(f'{module}.'):
                    raise ConfigError(
                        f'{key}: {tap.text!r} is in {module!r}, which activation_checkpointing runs without gradient, '
                        'so no loss on it could reach the weights; name parts after the tap in the option, or tap '
                        'a place after them.')


def _modules(option: Any) -> list[str]:
    return [option] if isinstance(option, str) else list(option or [])
