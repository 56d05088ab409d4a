"""Registries: children of mmengine's, in the scope ``mmfeatdistill``.

Everything is found by name on first use, so a config that says ``type='mmfeatdistill.FeatureDistiller'``
needs no import of its own.
"""
import inspect
from collections.abc import Collection, Mapping
from typing import Any

from mmengine import registry as root
from mmengine.registry import Registry

from mmfeatdistill.errors import ConfigError, config_key, did_you_mean

SCOPE = 'mmfeatdistill'

MODELS = Registry(
    'model', parent=root.MODELS, scope=SCOPE,
    locations=[f'{SCOPE}.{room}' for room in ('backbones', 'losses', 'connectors', 'objectives', 'distillers')])
HOOKS = Registry('hook', parent=root.HOOKS, scope=SCOPE, locations=[f'{SCOPE}.hooks'])
OPTIM_WRAPPERS = Registry('optimizer wrapper', parent=root.OPTIM_WRAPPERS, scope=SCOPE,
                          locations=[f'{SCOPE}.engine.mixed_precision'])
STRATEGIES = Registry('strategy', parent=root.STRATEGIES, scope=SCOPE, locations=[f'{SCOPE}.engine.fsdp'])


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
        ConfigError: ``cfg`` is no dict, has no or an unknown ``type``, an unknown key, a key that is not
            for the user to give, lacks a required one, or is refused by the class.
    """
    if not isinstance(cfg, Mapping) or 'type' not in cfg:
        raise ConfigError(f"{key}: expected a dict with a 'type', got {cfg!r}.")
    options = {name: value for name, value in cfg.items() if name not in ('type', '_scope_')}
    cls = _look_up(cfg['type'], key)
    check_options(inspect.signature(cls), options, key, found=found)
    with config_key(key):
        # The scope is switched so that layers which a module builds resolve here, not in the task library.
        return MODELS.build(dict(options, type=cls, **found, _scope_=SCOPE))


def check_options(signature: inspect.Signature, options: Mapping, key: str,
                  found: Collection[str] = ()) -> None:
    """Compares the keys that a user gave with a signature.

    Args:
        signature (inspect.Signature): Of what will be called.
        options (Mapping): What the user gave.
        key (str): Where it stands in the config.
        found (Collection[str]): Arguments that are found and not for the user to give.

    Raises:
        ConfigError: Names the offending key and what would do.
    """
    parameters = signature.parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    accepted = [name for name in parameters if name not in found]
    for option in options:
        if option in found:
            raise ConfigError(f'{key}.{option}: is found by itself and cannot be given; remove it.')
        if option not in parameters and not takes_any:
            raise ConfigError(f'{key}.{option}: there is no such option; there is '
                              f'{", ".join(map(repr, accepted)) or "none"}{did_you_mean(option, accepted)}')
    missing = [name for name in accepted
               if parameters[name].default is inspect.Parameter.empty and name not in options
               and parameters[name].kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD,
                                             inspect.Parameter.KEYWORD_ONLY)]
    if missing:
        raise ConfigError(f'{key}: needs {", ".join(map(repr, missing))}, which is missing; '
                          f'got {sorted(options)}.')


def _look_up(name: Any, key: str) -> Any:
    """The class that a config's ``type`` names."""
    if not isinstance(name, str):
        if not callable(name):
            raise ConfigError(f"{key}.type: expected the name of a class, such as 'SquaredError', got {name!r}.")
        return name
    cls = MODELS.get(name)
    if cls is None:
        raise ConfigError(f'{key}.type: there is no {name!r} in the registry of mmfeatdistill'
                          f'{did_you_mean(name, MODELS.module_dict)} A class of another library is '
                          "written with its scope, as in 'mmdet.MyLoss'.")
    return cls
