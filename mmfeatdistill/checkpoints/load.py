"""Loading a teacher's weights, and saying exactly what was loaded."""
import os.path as osp
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from torch import Tensor, nn

from mmfeatdistill.checkpoints.safe_load import read_checkpoint_file


@dataclass(frozen=True)
class LoadReport:
    """How a checkpoint fits a model.

    Attributes:
        source (str): Path or URL of the checkpoint.
        matched (int): Tensors that were loaded.
        missing (tuple[str, ...]): Tensors of the model that the checkpoint lacks.
        unexpected (tuple[str, ...]): Tensors of the checkpoint that the model lacks.
        mismatched (tuple[str, ...]): Tensors of another shape, with both shapes.
        inside (tuple[str, ...]): Those of the unexpected that belong into modules that the model has: the network of
            the checkpoint computes something else there.
        meta (dict): What the file says of its training, as mmengine's checkpoints do.
    """

    source: str
    matched: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    inside: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every tensor of the model was loaded."""
        return not (self.missing or self.mismatched)

    @property
    def fits(self) -> bool:
        """Whether the checkpoint is of this very network, perhaps with parts around it that the model lacks."""
        return self.complete and not self.inside

    def __str__(self) -> str:
        """One sentence: counts and examples."""
        parts = [f'{self.matched} tensors loaded']
        for label, keys in (('missing', self.missing), ('of another shape', self.mismatched),
                            ('unexpected', self.unexpected), ('of these inside modules of the network', self.inside)):
            if keys:
                more = f' and {len(keys) - 3} more' if len(keys) > 3 else ''
                parts.append(f'{len(keys)} {label} ({", ".join(keys[:3])}{more})')
        return f'{self.source}: {"; ".join(parts)}'


def load_checkpoint(model: nn.Module, source: str, weights_only: bool = True) -> LoadReport:
    """Loads what fits of a checkpoint into a model.

    Args:
        model (nn.Module): Receives the weights.
        source (str): A path, or a URL of any scheme that mmengine loads.
        weights_only (bool): Whether to refuse a file that is more than data, as code in it would run. Defaults to True.

    Returns:
        LoadReport: What was loaded and what was not; nothing is raised for a poor fit.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds no weights, or what :func:`mmfeatdistill.checkpoints.safe_load.read_checkpoint_file`
            refuses.
    """
    weights, meta = _read_state_dict(source, weights_only)
    state_dict = _unwrapped(model, weights)
    if hasattr(model, 'own_names'):  # it wears a network of another library, whose files have names of their own
        names = model.own_names(state_dict)
        state_dict = _select(state_dict, names.get)
    missing, unexpected, mismatched = _load(model, state_dict)
    # Checkpoints from before PyTorch 0.4.1 have no such counters, and nothing in eval mode reads them.
    missing = [key for key in missing if not key.endswith('num_batches_tracked')]
    computed = _computed_by_itself(model) if missing else set()
    missing = [key for key in missing if key not in computed]
    wanted = len([key for key in model.state_dict()
                  if key not in computed and not key.endswith('num_batches_tracked')])
    inside = tuple(name for name in unexpected if _is_inside(model, name, state_dict.get(name)))
    return LoadReport(source, wanted - len(missing) - len(mismatched), tuple(missing), tuple(unexpected),
                      tuple(mismatched), inside, meta)


def _unwrapped(model: nn.Module, state_dict: Mapping[str, Tensor]) -> OrderedDict:
    """The names without what DDP and torch.compile put in front of each, where the model is not wrapped itself."""
    own = {name.partition('.')[0] for name in model.state_dict()}
    selected = _select(state_dict, lambda key: key)
    for prefix in ('module', '_orig_mod', 'module'):
        if prefix not in own and all(name.startswith(f'{prefix}.') for name in selected):
            selected = _select(selected, lambda key: key.removeprefix(f'{prefix}.'))  # noqa: B023, called at once
    return selected


def _is_inside(model: nn.Module, name: str, value: Any) -> bool:
    """Whether a tensor that the model lacks belongs into a module that it has.

    Parts that the model lacks altogether, such as a head, change nothing in front of them: a child of the model, or of
    one of its children, as the classifier of a backbone. Deeper inside, as an offset of a deformable convolution or a
    further block of a stage, the network of the checkpoint computes something else.
    """
    module, path = model, name.split('.')
    depth = 0
    while depth < len(path) - 1 and path[depth] in module._modules:
        module, depth = module._modules[path[depth]], depth + 1  # type: ignore[assignment]
    # Loading hooks may have renamed it, and then its value is not at hand.
    derived = (isinstance(value, Tensor) and not value.is_floating_point()) or hasattr(module, path[depth])
    has_weights = bool(module._parameters)  # a layer, which what is left over would be a part of
    apart = path[0] == 'data_preprocessor' or any(part.startswith('loss') for part in path)
    return not (derived or apart) and (depth > 1 or (depth == 1 and has_weights and not module._modules))


_KEYS = ('state_dict', 'model', 'model_state_dict')
"""Under which checkpoints have the weights."""


def _is_weights(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(item, Tensor) for item in value.values())


def _read_state_dict(source: str, weights_only: bool) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
    if source.endswith('.safetensors') and osp.isfile(source):
        return _read_safetensors(source), {}
    checkpoint = read_checkpoint_file(source, weights_only)
    meta = checkpoint.get('meta') if isinstance(checkpoint, Mapping) else None
    for key in _KEYS:
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(key), Mapping):
            _check_averaged(source, checkpoint, key)
            checkpoint = checkpoint[key]
            break
    if not isinstance(checkpoint, Mapping) or not any(isinstance(v, Tensor) for v in checkpoint.values()):
        several = [str(key) for key, value in checkpoint.items() if _is_weights(value)] if isinstance(
            checkpoint, Mapping) else []
        if several:
            number = f' of {len(several)} networks, as' if len(several) > 1 else ' under'
            raise ValueError(f'{source!r} holds the weights{number} {", ".join(map(repr, several))}. '
                             f'{_take_out(source, repr(several[0]))}')
        content = sorted(checkpoint) if isinstance(checkpoint, Mapping) else type(checkpoint).__name__
        raise ValueError(f"{source!r} holds no weights: expected a 'state_dict' of tensors, got {content}. Give the "
                         'checkpoint of a model.')
    if quantized := [name for name, value in checkpoint.items() if str(name).endswith('_packed_params')
                     or (isinstance(value, Tensor) and value.is_quantized)]:
        raise ValueError(f'{source!r} holds the weights of a quantized network ({quantized[0]}), whose integers are '
                         'those of other layers. Give the weights that it was quantized from.')
    return checkpoint, meta if isinstance(meta, Mapping) else {}


def _check_averaged(source: str, checkpoint: Mapping[str, Any], key: str) -> None:
    """Refuses a file with the weights of one network twice, of which those under the usual name are not averaged.

    timm's ``state_dict_ema`` and torchvision's ``model_ema`` are what these libraries evaluate. mmengine exchanges the
    two when it saves, so its ``ema_state_dict`` has those that were not averaged.
    """
    own = {name.removeprefix('module.') for name in checkpoint[key]}
    for other, value in checkpoint.items():
        if other == key or not isinstance(value, Mapping) or (other == 'ema_state_dict' and 'meta' in checkpoint):
            continue
        places = {repr(other): value, **{f'{other!r}][{inner!r}': inside for inner, inside in value.items()
                                         if _is_weights(inside)}}
        for place, weights in places.items():
            if own and own <= {str(name).removeprefix('module.') for name in weights}:
                raise ValueError(f'{source!r} holds the weights of the network twice, under {key!r} and [{place}]; one '
                                 'of the two are usually averages over the training (EMA), which it was evaluated '
                                 f'with. {_take_out(source, place)}')


def _take_out(source: str, place: str) -> str:
    return ('Take the one out that is wanted: from mmfeatdistill.checkpoints.safe_load import read_checkpoint_file; '
            f"import torch; torch.save(read_checkpoint_file({source!r})[{place}], 'one.pth').")


def _read_safetensors(source: str) -> Mapping[str, Tensor]:
    """Tensors alone, as timm and Hugging Face store them."""
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ValueError(f'{source!r}: reading it needs safetensors: pip install safetensors.') from error
    try:
        return load_file(source)
    except Exception as error:  # noqa: BLE001 - a broken file shows in many ways; all mean the same here
        raise ValueError(f'{source!r} cannot be read as a checkpoint: {type(error).__name__}: {error}') from error


def _select(state_dict: Mapping[str, Tensor], rename: Callable[[str], Optional[str]]) -> OrderedDict:
    """Renames the entries, drops those without a new name, and keeps the version metadata."""
    renamed = ((rename(key), value) for key, value in state_dict.items())
    selected = OrderedDict((key, value) for key, value in renamed if key is not None)
    # Loading hooks of modules read their format version from this attribute.
    selected._metadata = getattr(state_dict, '_metadata', OrderedDict())  # type: ignore[attr-defined]
    return selected


def _load(model: nn.Module, state_dict: OrderedDict) -> tuple[Sequence[str], Sequence[str], list[str]]:
    """Loads with the modules' own loading hooks, which may adapt shapes, before judging shapes."""
    try:
        missing, unexpected = model.load_state_dict(state_dict, strict=False)
        return missing, unexpected, []
    except RuntimeError as error:
        mismatched = re.findall(r'size mismatch for (\S+): copying a param with shape (.*?) from '
                                r'checkpoint, the shape in current model is (.*?)\.?$', str(error), re.M)
        if not mismatched:
            raise ValueError(str(error)) from error
    names = {name for name, _, _ in mismatched}
    fitting = _select(state_dict, lambda key: None if key in names else key)
    missing, unexpected = model.load_state_dict(fitting, strict=False)
    shapes = [f'{name}: file {_plain(given)}, model {_plain(wanted)}' for name, given, wanted in mismatched]
    return [key for key in missing if key not in names], unexpected, shapes


def _computed_by_itself(model: nn.Module) -> set[str]:
    """Buffers that a network does not load of its own weights either.

    Load hooks of mmpretrain's Swin Transformer V2 drop the positions inside its windows, which follow from its config.
    """
    dropped = set(model.load_state_dict(model.state_dict(), strict=False).missing_keys)
    # Hooks that rename keys of another library do not know the network's own names at all.
    is_apart = dropped.intersection(name for name, _ in model.named_parameters())
    return set() if is_apart else dropped


def _plain(shape: str) -> str:
    return shape.replace('torch.Size(', '').rstrip(')')


def read_checkpoint(path: str) -> dict[str, Any]:
    """Reads a checkpoint that a training has left.

    Args:
        path (str): Of the file.

    Returns:
        dict: With ``meta`` and ``state_dict`` at least.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is broken, holds more than data, or another program has written it.
    """
    saved = read_checkpoint_file(path)
    content = saved if isinstance(saved, Mapping) else {}
    if not isinstance(content.get('state_dict'), Mapping) or 'cfg' not in (content.get('meta') or {}):
        found = ', '.join(map(str, list(content)[:5])) or type(saved).__name__
        raise ValueError(f"{path} is not from a training by mmengine's runner: expected 'state_dict' and 'meta' with "
                         f"the config under 'cfg', found {found}.")
    return dict(content)
