"""Registries: children of mmengine's, in the scope ``mmfeatdistill``.

Everything is found by name on first use, so a config that says ``type='mmfeatdistill.FeatureDistiller'``
needs no import of its own.
"""
import inspect
from collections.abc import Mapping
from typing import Any

from mmengine import registry as root
from mmengine.registry import Registry

from mmfeatdistill.packages import did_you_mean

SCOPE = 'mmfeatdistill'

MODELS = Registry(
    'model', parent=root.MODELS, scope=SCOPE,
    locations=[f'{SCOPE}.{room}' for room in ('losses', 'connectors', 'objectives', 'distillers')])
HOOKS = Registry('hook', parent=root.HOOKS, scope=SCOPE, locations=[f'{SCOPE}.hooks'])


def build(cfg: Any, key: str, **found: Any) -> Any:
    """Builds a module of this project from its config, with errors that name the config key.

    Args:
        cfg (dict): Config with ``type``; a name without a scope is looked up here first, then in
            mmengine; a class of another library is written with its scope (``'mmdet.MyLoss'``).
        key (str): Where the config stands, for messages: ``'model.objectives.fpn.loss'``.
        **found: Arguments that the caller supplies and the config must not.

    Returns:
        object: The built module.

    Raises:
        TypeError: ``cfg`` is no dict.
        ValueError: No or an unknown ``type``, an unknown key, a key that is not for the user to give,
            or a required one that is missing.
    """
    if not isinstance(cfg, Mapping):
        raise TypeError(f"{key}: expected a dict with a 'type', got {cfg!r}.")
    if 'type' not in cfg:
        raise ValueError(f"{key}: has no 'type'; got the keys {sorted(cfg)}.")
    options = {name: value for name, value in cfg.items() if name not in ('type', '_scope_')}
    cls = _look_up(cfg['type'], key)
    _check_options(cls, options, found, key)
    # The scope is switched so that layers which a module builds resolve here, not in the task library.
    return MODELS.build(dict(options, type=cls, **found, _scope_=SCOPE))


def _look_up(name: Any, key: str) -> Any:
    """The class that a config's ``type`` names."""
    if not isinstance(name, str):
        return name
    cls = MODELS.get(name)
    if cls is None:
        raise ValueError(f'{key}.type: there is no {name!r} in the registry of mmfeatdistill'
                         f'{did_you_mean(name, MODELS.module_dict)} A class of another library is '
                         "written with its scope, as in 'mmdet.MyLoss'.")
    return cls


def _check_options(cls: Any, options: Mapping, found: Mapping, key: str) -> None:
    """Compares the given keys with the constructor's signature."""
    name = cls.__name__
    parameters = inspect.signature(cls).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    accepted = [p for p in parameters if p not in found]
    for option in options:
        if option in found:
            raise ValueError(f'{key}.{option}: is found by itself and cannot be given; remove it.')
        if option not in parameters and not takes_any:
            raise ValueError(f'{key}.{option}: {name} has no such option; it takes '
                             f'{", ".join(accepted) or "none"}{did_you_mean(option, accepted)}')
    missing = [n for n, p in parameters.items()
               if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
               and n not in options and n not in found]
    if missing:
        raise ValueError(f'{key}: {name} needs {", ".join(map(repr, missing))}, which is missing.')
