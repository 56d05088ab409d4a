"""Registries: children of mmengine's, in the scope ``mmfeatdistill``.

Everything is found by name on first use, so a config that says ``type='mmfeatdistill.FeatureDistiller'``
needs no import of its own. What stands inside such a model, and every hook, may then be written with the scope
(``'mmfeatdistill.FeatureMatch'``) or without it (``'FeatureMatch'``).
"""
import inspect
import math
from collections.abc import Collection, Mapping
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin

from mmengine import registry as root
from mmengine.registry import Registry

from mmfeatdistill.errors import ConfigError, config_key, did_you_mean

SCOPE = 'mmfeatdistill'


class _HookRegistry(Registry):
    """Registers hooks in mmengine's own registry too, where a runner in any library's scope finds them."""

    def _register_module(self, module: type, module_name: Union[str, list[str], None] = None,
                         force: bool = False) -> None:
        super()._register_module(module, module_name, force)
        for name in [module_name or module.__name__] if not isinstance(module_name, list) else module_name:
            # A library looks its own hooks up before mmengine's, so that a hook of the same name stays its own.
            if name not in root.HOOKS.module_dict:
                root.HOOKS.register_module(name=name, module=module)


# A runner builds its model first. Looking up the distiller imports the hooks too, which are then found without a scope,
# and which the runner then registers by itself.
_MODEL_ROOMS = ('backbones', 'losses', 'connectors', 'teacher.sources', 'objectives', 'distillers', 'engine.hooks',
                'engine.needed_hooks')
MODELS = Registry('model', parent=root.MODELS, scope=SCOPE, locations=[f'{SCOPE}.{room}' for room in _MODEL_ROOMS])
TEACHER_SOURCES = Registry('source of teachers', scope=SCOPE, locations=[f'{SCOPE}.teacher.sources'])
HOOKS = _HookRegistry('hook', parent=root.HOOKS, scope=SCOPE, locations=[f'{SCOPE}.engine.hooks'])
OPTIM_WRAPPERS = Registry('optimizer wrapper', parent=root.OPTIM_WRAPPERS, scope=SCOPE,
                          locations=[f'{SCOPE}.engine.optim_wrapper'])
STRATEGIES = Registry('strategy', parent=root.STRATEGIES, scope=SCOPE, locations=[f'{SCOPE}.engine.strategy'])


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
        ConfigError: ``cfg`` is no dict, has no or an unknown ``type`` or one that does not take what is found, an
            unknown key, a key that is not for the user to give, lacks a required one, has a value of another type, or
            is refused by the class.
    """
    if not isinstance(cfg, Mapping) or 'type' not in cfg:
        raise ConfigError(f"{key}: expected a dict with a 'type', got {cfg!r}.")
    options = {name: value for name, value in cfg.items() if name not in ('type', '_scope_')}
    cls = _look_up(cfg['type'], key)
    with config_key(key):
        signature = inspect.signature(cls)
    _check_takes(signature, found, cfg['type'], key)
    check_options(signature, options, key, found=found)
    with config_key(key):
        # The scope is switched so that layers which a module builds resolve here, not in the task library.
        cfg = dict(options, type=cls, **found, _scope_=SCOPE)
        if not getattr(cls, '__module__', '').startswith(f'{SCOPE}.'):
            return MODELS.build(cfg)  # the annotations of other libraries may be inexact
        try:
            module = MODELS.build(cfg)
        except (TypeError, ValueError) as error:
            # What the class itself says of an option says more.
            if not any(f'{name}: ' in str(error) for name in options):
                check_values(signature, options, key)
            raise
        check_values(signature, options, key)
        return module


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
            raise ConfigError(f'{key}.{option}: is inferred; remove it.')
        if option not in parameters and not takes_any:
            there_is = f'there is {", ".join(map(repr, accepted))}' if accepted else 'it takes none, remove it'
            inferred = f' ({", ".join(found)}: inferred)' if found else ''
            raise ConfigError(f'{key}.{option}: there is no such option; {there_is}{inferred}'
                              f'{did_you_mean(option, accepted)}')
    missing = [name for name in accepted
               if parameters[name].default is inspect.Parameter.empty and name not in options
               and parameters[name].kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD,
                                             inspect.Parameter.KEYWORD_ONLY)]
    if missing:
        raise ConfigError(f'{key}: needs {", ".join(map(repr, missing))}, which is missing; '
                          f'got {sorted(options)}.')


def check_values(signature: inspect.Signature, options: Mapping, key: str) -> None:
    """Compares the values that a user gave with the annotations of a signature.

    Checked are numbers, truth values and literals; what has other annotations is left to the called. NaN is no number,
    nor is an integer of more than 64 bits.

    Args:
        signature (inspect.Signature): Of what will be called.
        options (Mapping): What the user gave.
        key (str): Where it stands in the config.

    Raises:
        ConfigError: Names the offending key, what was given and what would do.

    Examples:
        >>> def loss(weight: float = 1.0): ...
        >>> check_values(inspect.signature(loss), dict(weight='5e-7'), 'model.objectives.fpn.loss')
        Traceback (most recent call last):
        mmfeatdistill.errors.ConfigError: model.objectives.fpn.loss.weight: expected a number, got '5e-7'.
    """
    for name, value in options.items():
        parameter = signature.parameters.get(name)
        kinds = _kinds(parameter.annotation) if parameter is not None else ()
        if kinds and not any(_is_of(value, kind) for kind in kinds):
            *others, last = map(_told, kinds)
            expected = f'{", ".join(others)} or {last}' if others else last
            raise ConfigError(f'{key}.{name}: expected {expected}, got {value!r}.')


def _kinds(annotation: Any) -> tuple:
    """What a value may be: types and literal values; nothing where the annotation holds anything else."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) is Union:
        parts = [_kinds(part) for part in get_args(annotation)]
        return tuple(kind for part in parts for kind in part) if all(parts) else ()
    return (annotation,) if annotation in (int, float, bool, type(None)) else ()


def _is_of(value: Any, kind: Any) -> bool:
    if kind in (int, float):
        number = Integral if kind is int else Real
        too_long = isinstance(value, Integral) and abs(int(value)) >= 2**63
        return isinstance(value, number) and not isinstance(value, bool) and not too_long and not math.isnan(value)
    return isinstance(value, kind) if isinstance(kind, type) else value == kind


def _told(kind: Any) -> str:
    names = {int: 'an integer', float: 'a number', bool: 'True or False', type(None): 'None'}
    return names[kind] if isinstance(kind, type) else repr(kind)


def _check_takes(signature: inspect.Signature, found: Collection[str], name: Any, key: str) -> None:
    """Whether a class is of the kind that is wanted: one that takes what is found for it."""
    if _takes(signature, found):
        return
    # A class that has several names is listed under its own.
    fitting = {cls.__name__ for cls in MODELS.module_dict.values()
               if {*found} <= {*inspect.signature(cls).parameters}}
    raise ConfigError(f'{key}.type: {name!r} cannot be used here, as it takes no {" and ".join(map(repr, found))}; '
                      f'use one of {", ".join(map(repr, sorted(fitting)))}.')


def _takes(signature: inspect.Signature, names: Collection[str]) -> bool:
    parameters = signature.parameters
    return all(name in parameters for name in names) or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


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
