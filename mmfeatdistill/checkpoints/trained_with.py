"""What a checkpoint says of the network that it was trained in, held against the one that it is loaded into.

Tensors fit by name and shape, which number of heads, strides, activations and the normalization of images do not show.
"""
import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from mmengine.registry import MODELS
from torch import nn

_UNKNOWN: Any = object()
"""A value that is no plain data, or that nobody has stated."""

_NEUTRAL = {
    'init_cfg', 'pretrained', 'frozen_stages', 'norm_eval', 'with_cp', 'train_cfg', 'test_cfg', 'out_indices',
    'requires_grad', 'img_size', 'pretrain_img_size', 'convert_weights', 'checkpoint', 'batch_augments', 'out_type',
    'topk', 'cal_acc', 'size', 'num_classes', 'auxiliary_head', '_scope_', 'non_blocking', 'boxtype2tensor', 'inplace',
    'momentum'}
"""Options that change nothing of what a trained network computes, or that the tensors show."""

_NEUTRAL_PARTS = ('drop', 'loss', 'pad')

_BATCH_NORM = re.compile(r'BN(\dd)?$|BatchNorm')
"""Of the layers' names: `BN`, `BN2d`, `SyncBN`, `MMSyncBN`, `NaiveSyncBN2d`, `BatchNorm2d`."""


def trained_model(config: Any) -> Optional[Mapping[str, Any]]:
    """The model in the text of a config, as mmengine saves it with weights; read as data, not run.

    Args:
        config (Any): Of ``meta`` in a checkpoint.

    Returns:
        dict: Its model, or the student where that is a distiller; None where it cannot be read.

    Examples:
        >>> trained_model("model = dict(type='FeatureDistiller', student=dict(backbone=dict(depth=18)))")
        {'backbone': {'depth': 18}}
    """
    try:
        tree = ast.parse(config) if isinstance(config, str) else ast.Module([], [])
    except (SyntaxError, ValueError):
        return None
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and [getattr(t, 'id', None) for t in statement.targets] == ['model']:
            model = _value(statement.value)
            inner = model.get('student') if isinstance(model, Mapping) else None
            return inner if isinstance(inner, Mapping) else model if isinstance(model, Mapping) else None
    return None


def differences(trained: Mapping[str, Any], cfg: Mapping[str, Any], network: Any = None,
                key: str = '') -> Iterator[str]:
    """Where two configs of a network say something else, of which tensors show nothing.

    Args:
        trained (dict): That of the checkpoint.
        cfg (dict): That of the network.
        network (nn.Module, optional): What was built from it; its defaults stand for what one of the two leaves out.
        key (str): Where the two are.

    Yields:
        str: The option, and both values.

    Examples:
        >>> list(differences(dict(backbone=dict(style='caffe')), dict(backbone=dict(style='pytorch', depth=50))))
        ["backbone.style='caffe' (here 'pytorch')"]
        >>> list(differences(dict(act_cfg=dict(type='LeakyReLU')), dict(act_cfg=dict(type='SiLU'))))
        ["act_cfg.type='LeakyReLU' (here 'SiLU')"]
    """
    is_layer = key.endswith('_cfg.')
    if is_layer:
        before, now = (_layer(values.get('type')) for values in (trained, cfg))
        if None not in (before, now) and before != now:
            yield f"{key}type={trained['type']!r} (here {cfg['type']!r})"
            return  # options of another layer mean something else
    for name in dict.fromkeys((*trained, *cfg)):
        if name in _NEUTRAL or name == 'type' or any(part in name for part in _NEUTRAL_PARTS):
            continue
        # Where a layer's options are given as a dict, that stands in the network too, and its class in the registry.
        owner = _class_of_layer(cfg.get('type')) if is_layer else type(network)
        default = _default(owner, name) if key else _UNKNOWN
        before, now = (_plain(values.get(name, default)) for values in (trained, cfg))
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from differences(before, now, getattr(network, name, None), f'{key}{name}.')
        elif _UNKNOWN not in (before, now) and not _holds_unknown(before) and before != now:
            yield f'{key}{name}={before!r} (here {now!r})'


def _layer(kind: Any) -> Optional[str]:
    """The class that a layer's name stands for, as `Conv` and `Conv2d` do for one; None where that is no name.

    BatchNorms of all kinds predict alike.
    """
    if not isinstance(kind, str):
        return None
    name = kind.rpartition('.')[2]
    return 'BN' if _BATCH_NORM.search(name) else getattr(_class_of_layer(name), '__name__', name)


def _class_of_layer(kind: Any) -> Any:
    return MODELS.get(kind.rpartition('.')[2]) if isinstance(kind, str) else None


def _value(node: ast.AST) -> Any:
    """A node of plain data; what is none is unknown."""
    if isinstance(node, ast.Call) and getattr(node.func, 'id', None) == 'dict' and not node.args:
        return {word.arg: _value(word.value) for word in node.keywords if word.arg is not None}
    if isinstance(node, ast.Dict):
        return {key.value: _value(value) for key, value in zip(node.keys, node.values) if isinstance(key, ast.Constant)}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item) for item in node.elts]
    try:
        return ast.literal_eval(node)  # type: ignore[arg-type]
    except ValueError:
        return _UNKNOWN


def _plain(value: Any) -> Any:
    """Lists for tuples, as both are written for one another; dicts inside of lists are left out."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping) or value is None or isinstance(value, (bool, int, float, str)):
        return value
    return _UNKNOWN


def _holds_unknown(value: Any) -> bool:
    return isinstance(value, list) and any(
        item is _UNKNOWN or isinstance(item, Mapping) or _holds_unknown(item) for item in value)


def _default(owner: Any, name: str) -> Any:
    """What a class of networks or layers takes where a config does not say it."""
    for cls in owner.__mro__ if isinstance(owner, type) and issubclass(owner, nn.Module) else ():
        own = vars(cls).get('__init__')
        parameter = inspect.signature(own).parameters.get(name) if own is not None else None
        if parameter is not None:
            return _UNKNOWN if parameter.default is parameter.empty else parameter.default
    return _UNKNOWN
