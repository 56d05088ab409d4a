"""Options of a runner that replace how modules of the student run, held against what is tapped."""
from collections.abc import Mapping
from typing import Any

from mmfeatdistill.distillers import FeatureDistiller
from mmfeatdistill.errors import ConfigError


def check_runner_options(cfg: Mapping, model: FeatureDistiller) -> None:
    """Refuses taps that options of the runner put out of reach.

    Args:
        cfg (Config): Of the training.
        model (FeatureDistiller): What is trained.

    Raises:
        ConfigError: Names the option, the tap, and what would do.
    """
    located = {tap.text: tap for tap in model.reader.taps}
    for name, objective in model.objectives.items():
        for tap in (located.get(pair.student.text, pair.student) for pair in objective.taps):
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
