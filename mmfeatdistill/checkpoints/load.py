"""Loading a teacher's weights, and saying exactly what was loaded."""
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
    """

    source: str
    matched: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every tensor of the model was loaded."""
        return not (self.missing or self.mismatched)

    def __str__(self) -> str:
        """One sentence: counts and examples."""
        parts = [f'{self.matched} tensors loaded']
        for label, keys in (('missing', self.missing), ('of another shape', self.mismatched),
                            ('unexpected', self.unexpected)):
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
    # DDP puts 'module.' in front of every name.
    state_dict = _select(_read_state_dict(source, weights_only), lambda key: key.removeprefix('module.'))
    missing, unexpected, mismatched = _load(model, state_dict)
    # Checkpoints from before PyTorch 0.4.1 have no such counters, and nothing in eval mode reads them.
    missing = [key for key in missing if not key.endswith('num_batches_tracked')]
    wanted = len([key for key in model.state_dict() if not key.endswith('num_batches_tracked')])
    return LoadReport(source, wanted - len(missing) - len(mismatched), tuple(missing), tuple(unexpected),
                      tuple(mismatched))


def _read_state_dict(source: str, weights_only: bool) -> Mapping[str, Tensor]:
    checkpoint = read_checkpoint_file(source, weights_only)
    for key in ('state_dict', 'model', 'model_state_dict'):
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
            break
    if not isinstance(checkpoint, Mapping) or not any(isinstance(v, Tensor) for v in checkpoint.values()):
        content = sorted(checkpoint) if isinstance(checkpoint, Mapping) else type(checkpoint).__name__
        raise ValueError(f"{source!r} holds no weights: expected a 'state_dict' of tensors, got {content}. Give the "
                         'checkpoint of a model.')
    return checkpoint


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
