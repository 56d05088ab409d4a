"""Traces: which modules ran in a pass, in which order, and on which tensors."""
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Optional

from mmcv.cnn.bricks import Swish
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ReLU6, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU,
                nn.Mish, nn.Hardswish, Swish)


class Call(NamedTuple):
    """One run of one module."""

    path: str
    module: nn.Module
    inputs: list[Tensor]
    outputs: list[Tensor]


def trace(model: nn.Module, run: Callable[[], Any]) -> list[Call]:
    """Notes every module that runs in a pass.

    Args:
        model (nn.Module): The network.
        run: Runs it. It may fail on the way: what ran before is noted.

    Returns:
        list[Call]: In the order in which the modules ended. A module whose ``forward`` is called directly, as mmseg
        calls its decode heads, is not in it; the modules inside it are.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
        >>> [call.path for call in trace(model, lambda: model(torch.zeros(1, 3, 2, 2)))]
        ['0', '1', '']
    """
    calls: list[Call] = []
    handles = [module.register_forward_hook(partial(_note, calls, path), with_kwargs=True)
               for path, module in model.named_modules()]
    try:
        run()
    except Exception:  # noqa: BLE001 - what ran before it failed can be used
        pass
    finally:
        for handle in handles:
            handle.remove()
    return calls


def closing_activation(calls: Sequence[Call], path: str) -> Optional[str]:
    """The activation that ends a module: the last thing that its output went through.

    Args:
        calls (Sequence[Call]): A trace.
        path (str): The module.

    Returns:
        str | None: Path of the activation; the module's own if it is one; None where the module ends otherwise, as the
        linear bottlenecks of MobileNetV2 do.

    Raises:
        ValueError: The module did not run, or gives several tensors.

    Examples:
        >>> model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), nn.Conv2d(4, 4, 1))
        >>> calls = trace(model, lambda: model(torch.zeros(1, 3, 2, 2)))
        >>> closing_activation(calls, '0'), closing_activation(calls, '1')
        ('0.1', None)
    """
    end = _last(calls, path)
    if end is None:
        raise ValueError(f'{path!r} did not run.')
    outputs = calls[end].outputs
    if len(outputs) != 1:
        raise ValueError(f'{path!r} gives {len(outputs)} features, each with an activation of its own; name one stage, '
                         "such as 'backbone.layer4:pre'.")
    for call in reversed(calls[:end + 1]):
        if isinstance(call.module, _ACTIVATIONS) and _is_within(call.path, path) and call.outputs[0] is outputs[0]:
            return call.path
    return None


def feeding_norms(calls: Sequence[Call], path: str, is_input: bool) -> list[Optional[str]]:
    """The batch normalizations whose statistics tell the distributions of a tap's features.

    Of a feature it is the one that gave this very tensor. In a residual block, whose sum no normalization gives, it is
    the last one on the main branch: ``bn3`` of a bottleneck, ``bn2`` of a basic block, whatever the shortcut holds.

    Args:
        calls (Sequence[Call]): A trace.
        path (str): The tapped module.
        is_input (bool): Whether its input is tapped; otherwise its output.

    Returns:
        list[str | None]: A path for each tensor of the place; None where no normalization tells.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        >>> calls = trace(model.eval(), lambda: model(torch.zeros(1, 3, 2, 2)))
        >>> feeding_norms(calls, '2', is_input=True)
        ['1']
    """
    end = _last(calls, path)
    if end is None:
        return []
    before = calls[:end + 1]
    features = calls[end].inputs if is_input else calls[end].outputs
    block = path.rpartition('.')[0] if is_input else path
    norms = [call for call in before if isinstance(call.module, _BatchNorm) and call.module.affine]
    shortcuts = [call.path for call in before if _is_shortcut(call, calls)]
    # What is inside a module whose input is tapped runs after the tap.
    aside = [*shortcuts, path] if is_input else shortcuts
    main = [call for call in norms if _is_within(call.path, block)
            and not any(_is_within(call.path, other) for other in aside)]
    found: list[Optional[str]] = []
    for feature in features:
        own = [call.path for call in norms if call.outputs[0] is feature]
        residual = [call.path for call in main if call.outputs[0].shape == feature.shape] if len(features) == 1 else []
        found.append((own or residual)[-1] if own or residual else None)
    return found


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in a nest of tuples, lists and dicts, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)


def _note(calls: list[Call], path: str, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
    calls.append(Call(path, module, list(tensors_in((args, kwargs))), list(tensors_in(output))))


def _last(calls: Sequence[Call], path: str) -> Optional[int]:
    return max((index for index, call in enumerate(calls) if call.path == path), default=None)


def _is_within(path: str, block: str) -> bool:
    return path == block or not block or path.startswith(f'{block}.')


def _is_shortcut(call: Call, calls: Sequence[Call]) -> bool:
    """Whether a module reads what its block reads, though another one read it first."""
    parent = call.path.rpartition('.')[0]
    block = _last(calls, parent)
    if not call.path or block is None or not call.inputs or not calls[block].inputs:
        return False
    entry = calls[block].inputs[0]
    readers = [other.path for other in calls if other.path.rpartition('.')[0] == parent and other.path != parent
               and other.inputs and other.inputs[0] is entry]
    return call.inputs[0] is entry and call.path != readers[0]
