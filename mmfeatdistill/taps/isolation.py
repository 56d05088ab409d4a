"""Passes that leave no trace: modes, statistics of BatchNorm and random states as they were."""
import random
import sys
import zlib
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FunctionType
from typing import Any, Optional

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode


@contextmanager
def eval_isolated(model: nn.Module) -> Iterator[None]:
    """Eval mode, no gradient, and random and training states as they were afterwards.

    Args:
        model (nn.Module): Any network.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad(), random_state_kept():
            model.eval()  # not by the flags alone: LeViT, for one, prepares its attention there
            yield
    finally:
        # One by one: backbones override train() and would not return to where they were.
        for module, mode in modes:
            module.training = mode


@contextmanager
def training_isolated(model: nn.Module) -> Iterator[None]:
    """The paths that a network takes in training, without what makes a training pass random or leaves a trace.

    Every module with children is in training mode, as the network itself switches; single layers that may have
    statistics or draw random numbers stay in eval mode, and dropout is left out. So a feature that is the same tensor
    in training and in evaluation has the same values.
    Buffers, attributes and random states are as they were after the pass, and so are the contents of lists, dicts and
    plain objects that modules hold, such as histories and assigners. Whether there are gradients is left to the caller:
    parts with gradient checkpointing run otherwise then.

    Args:
        model (nn.Module): Any network.

    Examples:
        >>> model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))
        >>> with training_isolated(model):
        ...     model.training, model[0].training, model(torch.ones(2, 3)).sum().item() > 5.9
        (True, False, True)
        >>> model[1].num_batches_tracked.item()
        0
    """
    held = _contents(model)
    # What only an in-place operation changes is put back by its values.
    values = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with random_state_kept(), _NoDropout():
            model.train()  # as it switches itself: stages may be frozen, norms kept in eval mode
            for module in model.modules():
                if next(module.children(), None) is None and not _has_only_weights(module):
                    module.training = False
            yield
    finally:
        for container, before in held:
            container.clear()
            container.extend(before) if isinstance(container, (list, deque)) else container.update(before)
        with torch.no_grad():
            for buffer, value in values:
                buffer.copy_(value)


@contextmanager
def unset_memory_filled(model: nn.Module) -> Iterator[None]:
    """Small numbers in parameters that were allocated and not initialized yet; they are as they were afterwards.

    Parameters outside torch's layers, such as the branches of mmdet's TridentNet and the level embeddings of its DINO,
    hold what was in memory until ``init_weights()``. Zeros hide that two branches differ, and NaN that anything does.

    Args:
        model (nn.Module): Any network.
    """
    held = [(parameter, parameter.detach().clone()) for module in model.modules()
            if not any(hasattr(module, name) for name in ('reset_parameters', '_reset_parameters'))
            for parameter in module._parameters.values() if parameter is not None and _may_be_unset(parameter)]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter, _ in held:
            parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, before in held:
                parameter.copy_(before)


def _may_be_unset(parameter: Tensor) -> bool:
    if is_lazy(parameter) or parameter.is_meta or not parameter.is_floating_point() or not parameter.numel():
        return False
    largest = float(parameter.detach().abs().max())
    return not 0 < largest < 1e3  # also where it is NaN


_CONTAINERS = (list, deque, set, dict, OrderedDict, defaultdict)
_FOREIGN = {*sys.stdlib_module_names, 'torch', 'numpy', 'mmengine'}
"""Packages whose objects, other than modules, are none that a pass changes, or have their own."""


def _contents(model: nn.Module) -> list[tuple[Any, Any]]:
    """All containers that a network consists of, with copies: attributes, histories, options of objects it holds."""
    found: dict[int, tuple[Any, Any]] = {}
    stack: list[Any] = [model]
    while stack:
        value = stack.pop()
        if isinstance(value, nn.Module) or (hasattr(value, '__dict__') and not isinstance(value, (type, FunctionType))
                                            and type(value).__module__.partition('.')[0] not in _FOREIGN):
            value = vars(value)
        # Of subclasses, such as configs, nobody knows what filling them anew does.
        if type(value) in _CONTAINERS and id(value) not in found:
            found[id(value)] = (value, value.copy() if value else ())  # most are tables of hooks, and empty
            stack += value.values() if isinstance(value, dict) else value
    return list(found.values())


def _has_only_weights(layer: nn.Module) -> bool:
    """Whether a layer of a library has nothing but weights: if it asks whether it trains, it computes something else.

    Such as the convolutions of mmdet's TridentNet, which have three branches in training and one afterwards. PyTorch's
    own layers do so for statistics and dropout alone.
    """
    is_foreign = not type(layer).__module__.startswith('torch.')
    return is_foreign and bool(layer._parameters) and not layer._buffers


class _NoDropout(TorchFunctionMode):
    """Leaves out what networks drop by function, where no layer could be switched off."""

    _DROPS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout)

    def __torch_function__(self, func: Callable, types: Iterable[type], args: tuple = (),
                           kwargs: Optional[dict[str, Any]] = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in self._DROPS:
            return args[0] if args else kwargs['input']
        if func is F.scaled_dot_product_attention:
            args, kwargs = args[:4], dict(kwargs, dropout_p=0.0, **({'is_causal': args[5]} if len(args) > 5 else {}))
        elif func is F.multi_head_attention_forward:
            kwargs['training'] = False
        return func(*args, **kwargs)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Leaves the random states of Python, NumPy and torch as they were, whatever is drawn inside.

    Examples:
        >>> before = torch.get_rng_state()
        >>> with random_state_kept():
        ...     _ = torch.rand(3), random.random(), np.random.rand()
        >>> torch.equal(torch.get_rng_state(), before)
        True
    """
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def random_states() -> tuple:
    """The random states of Python, NumPy and torch, to be compared with those of another time.

    Returns:
        tuple: Equal exactly if nothing was drawn in between.
    """
    numpy = np.random.get_state(legacy=True)
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return (random.getstate(), repr(tuple(numpy)), np.asarray(tuple(numpy)[1]).tobytes(),
            *(state.numpy().tobytes() for state in (torch.get_rng_state(), *devices)))


@contextmanager
def random_state_aside() -> Iterator[None]:
    """Lets a pass draw random numbers of its own, so that whatever else draws goes on as if there had been no pass.

    They follow from the present random state, so that a resumed training draws the same.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> with random_state_aside():
        ...     aside = torch.rand(1)
        >>> drawn, _ = torch.rand(1), torch.manual_seed(0)
        >>> torch.equal(torch.rand(1), drawn), torch.equal(aside, drawn)
        (True, False)
    """
    with random_state_kept():
        torch.manual_seed(zlib.crc32(torch.get_rng_state().numpy().tobytes()))
        yield


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    r"""Lets every BatchNorm of a network normalize as in training, and leaves its running statistics alone.

    .. math:: y = \gamma \, \frac{x - \mathrm{mean}_{n,i}(x)}{\sqrt{\mathrm{var}_{n,i}(x) + \epsilon}} + \beta

    All else keeps its mode: Dropout and DropPath of a teacher stay off.

    Args:
        model (nn.Module): The network.

    Examples:
        >>> norm = nn.BatchNorm1d(1).eval()
        >>> with batch_statistics(norm), torch.no_grad():
        ...     norm(torch.tensor([[1.0], [3.0]])).flatten()
        tensor([-1.0000,  1.0000])
        >>> norm.running_mean, norm.training
        (tensor([0.]), False)
    """
    with _changed(_norms(model), 'training', True), untracked_statistics(model):
        yield


@contextmanager
def untracked_statistics(model: nn.Module) -> Iterator[None]:
    """Stops every BatchNorm of a network from updating its running statistics; each keeps its mode.

    Args:
        model (nn.Module): The network.

    Examples:
        >>> norm = nn.BatchNorm1d(1)
        >>> with untracked_statistics(norm), torch.no_grad():
        ...     norm(torch.tensor([[1.0], [3.0]])).flatten()
        tensor([-1.0000,  1.0000])
        >>> norm.running_mean
        tensor([0.])
    """
    # In training mode, BatchNorm and SyncBatchNorm then hand no running statistics to their kernels.
    with _changed(_norms(model), 'track_running_stats', False):
        yield


@contextmanager
def running_statistics(model: nn.Module) -> Iterator[None]:
    """Lets every BatchNorm of a network normalize by its running statistics, which stay as they are.

    Args:
        model (nn.Module): The network.

    Examples:
        >>> norm = nn.BatchNorm1d(1)
        >>> with running_statistics(norm):
        ...     norm(torch.tensor([[2.0]])).round(decimals=3).item()
        2.0
        >>> norm.training
        True
    """
    with _changed(_norms(model), 'training', False):
        yield


def statistics_for(model: nn.Module, feature: Tensor) -> AbstractContextManager:
    """Lets a network see a feature that may be a batch of one vector, as the last of an epoch, without statistics.

    Args:
        model (nn.Module): The network.
        feature (Tensor): What it is given, shape (N, C, ...).

    Returns:
        AbstractContextManager: :func:`running_statistics` for one vector; otherwise nothing changes.
    """
    return running_statistics(model) if feature.numel() == feature.shape[1] else nullcontext()


@contextmanager
def _changed(modules: Sequence[nn.Module], attribute: str, value: Any) -> Iterator[None]:
    """Gives an attribute of some modules another value for a while."""
    before = [getattr(module, attribute) for module in modules]
    try:
        for module in modules:
            setattr(module, attribute, value)
        yield
    finally:
        for module, own in zip(modules, before):
            setattr(module, attribute, own)


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]
