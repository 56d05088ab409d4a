"""The weights that a teacher is built with: none where a checkpoint follows, set ones where none does."""
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Optional

import torch
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

_DRAWS = (Tensor.uniform_, Tensor.normal_, init.uniform_, init.normal_, init.kaiming_uniform_)

_DRAWING = ('reset_parameters', '_reset_parameters')
"""By which torch's layers draw their weights when they are made."""


@torch.no_grad()
def init_unset_parameters(model: nn.Module) -> None:
    """Initializes the parameters of a new network that hold whatever was in memory.

    Those are parameters outside torch's layers, such as the level embeddings of deformable transformers and the scales
    of SSD. They become what ``init_weights()`` makes of them where it loads nothing. What torch's layers have drawn
    stays: ``init_weights()`` silences entire branches, such as the last norm of each residual block, and features of
    networks that are trained have them.

    Args:
        model (nn.Module): Of any MM library.

    Examples:
        >>> from mmengine.model import BaseModule
        >>> model = BaseModule(init_cfg=dict(type='Constant', layer='BaseModule', val=2.0))
        >>> model.weight = nn.Parameter(torch.empty(3))
        >>> init_unset_parameters(model)
        >>> model.weight.tolist()
        [2.0, 2.0, 2.0]
    """
    unset = [name for name, module in model.named_modules()
             if module._parameters and not any(hasattr(module, method) for method in _DRAWING)]
    if not unset or not hasattr(model, 'init_weights'):
        return
    initialized: Any = copy.deepcopy(model)
    init_without_loading(initialized)
    for name in unset:
        values = dict(initialized.get_submodule(name).named_parameters(recurse=False))
        for key, parameter in model.get_submodule(name).named_parameters(recurse=False):
            parameter.copy_(values[key])


def init_without_loading(model: Any) -> None:
    """Initializes a network as ``init_weights()`` does, but from random weights where that would load a checkpoint.

    Args:
        model (BaseModule): Of any MM library.
    """
    for module in model.modules():
        if hasattr(module, 'init_cfg'):
            module.init_cfg = without_pretrained(module.init_cfg)
    with _without_names_of_checkpoints(model):
        model.init_weights()


@contextmanager
def _without_names_of_checkpoints(model: nn.Module) -> Iterator[None]:
    """Some networks, as DetectoRS, load what they keep as ``pretrained`` themselves, and are initialized without."""
    named = {module: module.pretrained for module in model.modules()
             if isinstance(vars(module).get('pretrained'), str)}
    for module in named:
        module.pretrained = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for module, checkpoint in named.items():
            module.pretrained = checkpoint


def without_pretrained(init_cfg: Any) -> Any:
    """What is left of an ``init_cfg``, one dict or a list of them, without the entries that load a checkpoint.

    Those name one, whatever their type is: that of mmseg's SAN is ``'Pretrained_Part'``.

    Examples:
        >>> without_pretrained(dict(type='Pretrained', checkpoint='a.pth')) is None
        True
        >>> without_pretrained([dict(type='Pretrained', checkpoint='a.pth'), dict(type='Normal', layer='Linear')])
        [{'type': 'Normal', 'layer': 'Linear'}]
    """
    if isinstance(init_cfg, Mapping):
        return None if 'checkpoint' in init_cfg else init_cfg
    return [entry for entry in init_cfg or [] if 'checkpoint' not in entry] or None


class skip_random_init(TorchFunctionMode):
    """A context in which the parameters of new modules keep whatever values their memory has.

    Drawing random weights takes most of the time that a network is built in; where all parameters are loaded from a
    checkpoint afterwards, it is for nothing. Constant initializations and buffers are as always.

    Examples:
        >>> state = torch.get_rng_state()
        >>> with skip_random_init():
        ...     model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        >>> torch.equal(torch.get_rng_state(), state), model[1].weight.sum().item()
        (True, 4.0)
    """

    def __torch_function__(self, func: Callable, types: Iterable[type], args: tuple = (),
                           kwargs: Optional[dict[str, Any]] = None) -> Any:
        """Leaves out what would draw the values of a parameter."""
        kwargs = kwargs or {}
        if func in _DRAWS:
            tensor = args[0] if args else kwargs['tensor']
            if isinstance(tensor, nn.Parameter):
                return tensor
        return func(*args, **kwargs)
