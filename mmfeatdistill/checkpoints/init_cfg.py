"""Loading the weights that a model's own config names, and saying which those are."""
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, Optional

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmfeatdistill.checkpoints.load import LoadReport
from mmfeatdistill.checkpoints.load_fit import find_renamings


class NamedWeights(NamedTuple):
    """What was loaded of the weights that a model names.

    Attributes:
        report (LoadReport): Of the entire model.
        partly (list[str]): Children of the model of which only a part was loaded.
        unloaded (list[str]): Children of the model that have parameters, of which nothing was loaded.
        misfits (list[str]): Of each module that was given weights and could take none, or has lost them again, why.
    """

    report: LoadReport
    partly: list[str]
    unloaded: list[str]
    misfits: list[str]


def load_init_cfg(model: nn.Module, cfg: Mapping) -> NamedWeights:
    """Runs ``init_weights()`` and notes what is loaded meanwhile: mmengine does not mind what is not.

    A module of another library that came with its weights (``pretrained=True`` of timm's and Hugging Face's) keeps
    them: mmengine would call that module's own ``init_weights()``, which draws new ones.

    Args:
        model (nn.Module): Of any MM library.
        cfg (Mapping): The config that it was built from.

    Returns:
        NamedWeights: What was loaded.

    Examples:
        >>> load_init_cfg(BaseModule(), {}).report.matched
        0
    """
    loaded: dict[str, Optional[Tensor]] = {}
    kept = []
    for path in _with_weights(cfg):
        module = _find(model, path)
        if module is None:
            continue
        inside = f'{path}.' if path else ''
        loaded.update((inside + name, None) for name in _tensors(module))
        # What mmengine asks a module before it calls its init_weights().
        kept += [part for part in module.modules() if not isinstance(part, BaseModule)]
    given: dict[str, Mapping[str, Tensor]] = {}
    handles = [module._register_load_state_dict_pre_hook(partial(_note, name, loaded, given), with_module=True)
               for name, module in model.named_modules()]
    for module in kept:
        module.is_init = True  # type: ignore[assignment]
    try:
        model.init_weights()  # type: ignore[operator]
    finally:
        for handle in handles:
            handle.remove()
        for module in kept:
            vars(module).pop('is_init', None)
    misfits = [sentence for path, weights in given.items()
               if (sentence := _misfit(model.get_submodule(path), path, weights, loaded))]
    return _judge(model, loaded, [*misfits, *_overwritten(model, loaded)])


def _overwritten(model: nn.Module, loaded: Mapping[str, Optional[Tensor]]) -> Iterator[str]:
    """What was loaded and then drawn anew: mmpretrain's ViT knows ``init_cfg`` as one dict only, not in a list."""
    for path, module in model.named_modules():
        for name, value in _own_tensors(module):
            given = loaded.get(f'{path}.{name}' if path else name)
            if given is not None and not torch.equal(given.to(value), value):
                yield (f'init_weights() of {type(module).__name__} has overwritten {path!r}.{name} after init_cfg had '
                       'loaded it; name the weights by one dict in place of a list, or give the file as checkpoint')


def _judge(model: nn.Module, loaded: Collection[str], misfits: list[str]) -> NamedWeights:
    wanted = [name for name in _tensors(model) if not name.endswith('num_batches_tracked')]
    missing = [name for name in wanted if name not in loaded]
    begun = {name.partition('.')[0] for name in wanted if name in loaded}
    children = list(dict.fromkeys(name.partition('.')[0] for name in missing))
    return NamedWeights(LoadReport('init_cfg', len(wanted) - len(missing), tuple(missing), (), ()),
                        [child for child in children if child in begun],
                        [child for child in children if child not in begun], misfits)


def _misfit(module: nn.Module, path: str, given: Mapping[str, Tensor], loaded: Collection[str]) -> str:
    """Why a module could take nothing of some weights; empty if it took some."""
    own = {name: value for name, value in module.state_dict().items() if not name.endswith('num_batches_tracked')}
    if any((f'{path}.{name}' if path else name) in loaded for name in own):
        return ''
    where = f'what init_cfg names for {path!r} fits nothing there'
    shapes = [f'{name}: file {[*given[name].shape]}, model {[*value.shape]}' for name, value in own.items()
              if name in given]
    if shapes:
        return f'{where}, as shapes differ ({shapes[0]}): the file is of a network of another width'
    renamings = find_renamings([*own], [*given])
    if renamings and not renamings[0].new:
        return f'{where}: give it prefix={renamings[0].old!r}, with which the names in the file begin'
    return f'{where}: the file has names such as {next(iter(given), None)!r}, and the network {next(iter(own), None)!r}'


def _note(path: str, loaded: dict[str, Optional[Tensor]], given: dict[str, Mapping[str, Tensor]], module: nn.Module,
          state_dict: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Called before a module takes its own tensors out of a state dict, whoever loads it."""
    if not prefix:
        given[path] = dict(state_dict)
    for name, value in _own_tensors(module):
        found = state_dict.get(prefix + name)
        if found is not None and found.shape == value.shape:
            loaded[f'{path}.{name}' if path else name] = found


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from ((name, value) for name, value in module._parameters.items() if value is not None)
    yield from ((name, value) for name, value in module._buffers.items()
                if value is not None and name not in module._non_persistent_buffers_set)


def _tensors(model: nn.Module) -> list[str]:
    """By their places, which hooks of state dicts may rename."""
    return [f'{path}.{name}' if path else name for path, module in model.named_modules()
            for name, _ in _own_tensors(module)]


def _with_weights(cfg: Any, path: str = '') -> Iterator[str]:
    """Where a config has a module that gets its weights when it is built."""
    if not isinstance(cfg, Mapping):
        return
    if cfg.get('pretrained') is True or cfg.get('checkpoint_path'):
        yield path
        return
    for name, value in cfg.items():
        yield from _with_weights(value, f'{path}.{name}' if path else str(name))


def _find(model: nn.Module, path: str) -> Any:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None
