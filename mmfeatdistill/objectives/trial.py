"""Comparing the features of the dry run, so that what cannot be compared is found before training."""
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Optional

import torch
from torch import Tensor, nn

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.objectives.box_encodings import different_lengths, different_outputs, head_of
from mmfeatdistill.objectives.pairs import FeaturePair, run_connector
from mmfeatdistill.taps.dry_run import probe_larger
from mmfeatdistill.taps.feature_map import as_map
from mmfeatdistill.taps.reader import TappedPass
from mmfeatdistill.taps.tap import Tap

Compare = Callable[[Tensor, Tensor], Any]


@torch.no_grad()
def try_losses(compare: Compare, connectors: nn.ModuleList, pairs: Sequence[FeaturePair], student: TappedPass,
               teachers: Sequence[TappedPass], key: str) -> None:
    """Compares each pair of features once.

    Args:
        compare: The loss of a connected student feature and a teacher feature.
        connectors (nn.ModuleList): In the order of the pairs; left in training mode.
        pairs (Sequence[FeaturePair]): What is matched.
        student (TappedPass): The student in the dry run.
        teachers (Sequence[TappedPass]): Each teacher that is read.
        key (str): Where the objective stands in the config.

    Raises:
        ConfigError: Names the connector or the loss, and what would do.
    """
    connectors.eval()
    larger: Optional[tuple[TappedPass, list[TappedPass]]] = None
    for connector, pair in zip(connectors, pairs):
        check_predictions(pair, student, teachers[pair.teacher_index], f'{key}.taps')
        try:
            _try_loss(compare, connector, *pair.of(student, teachers), pair, key)
        except ConfigError:
            # What refuses a map of one position may do so only because the image of the dry run is small.
            if not _is_one_position(pair.target(teachers)) or not teachers[pair.teacher_index].reader.layouts:
                raise
            with _named(f'{key}.taps'):
                larger = larger or (probe_larger(student), [probe_larger(teacher) for teacher in teachers])
            _try_loss(compare, connector, *pair.of(*larger), pair, key)
    connectors.train()


def _try_loss(compare: Compare, connector: nn.Module, own: Tensor, target: Tensor, pair: FeaturePair, key: str) -> None:
    with _named(f'{key}.connector'):
        connected, width = run_connector(connector, own, target).shape[1], as_map(target).shape[1]
    hint = '' if connected == width or not _compares(compare, target, pair) else (
        f' The connected student feature has {connected} channels and the teacher feature {width}; '
        "use connector=dict(type='Conv1x1').")
    with _named(f'{key}.{"connector" if hint else "loss"}', hint):
        loss = compare(*pair.connect(connector, own, target))
    _check_loss(loss, own, target, f'{key}.loss')


def _is_one_position(feature: Tensor) -> bool:
    return feature.dim() == 4 and feature.shape[2:].numel() == 1


def check_predictions(pair: FeaturePair, student: TappedPass, teacher: TappedPass, key: str) -> None:
    """Refuses outputs of heads that differ in what each channel means, which no connector brings into line.

    Args:
        pair (FeaturePair): What is matched.
        student (TappedPass): The student in the dry run.
        teacher (TappedPass): The teacher.
        key (str): Of the taps in the config.

    Raises:
        ConfigError: Both are what the networks predict, with different numbers of channels, or in another encoding.
    """
    own, target = (as_map(feature).shape[1] for feature in (pair.student.of(student), pair.teacher.of(teacher)))
    sides = ((student, pair.student), (teacher, pair.teacher))
    # Of a head that scales or casts what a layer gives, the layer is not what the network returns.
    if not all(side.is_in_head for _, side in sides):
        return
    are_outputs = any(side.tap in tapped.reader.predictions for tapped, side in sides)
    if own != target and are_outputs:
        raise ConfigError(
            f"{key}: the student's {pair.student.tap!r} and the teacher's {pair.teacher.tap!r} are what they predict, "
            f'with {own} and {target} channels: other classes, or boxes in another encoding, which no connector brings '
            'together. Match features, such as those of the neck.')
    head, other = (head_of(tapped.model, Tap.parse(side.tap).place.path) for tapped, side in sides)
    reason = (different_outputs(head, other, own, are_outputs) if own == target
              else different_lengths(head, other, own, target))
    if reason is not None:
        raise ConfigError(f"{key}: the student's {pair.student.tap!r} and the teacher's {pair.teacher.tap!r} are what "
                          f'they predict {reason}. Match features, such as those of the neck.')


def _compares(compare: Compare, feature: Tensor, pair: FeaturePair) -> bool:
    """Whether the loss compares two such features."""
    try:
        compare(*pair.connect(nn.Identity(), feature, feature))
    except Exception:  # noqa: BLE001 - as below
        return False
    return True


@contextmanager
def _named(key: str, hint: str = '') -> Iterator[None]:
    """Names the config key in whatever error a connector or loss causes: each library refuses in its own way."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        kind = '' if isinstance(error, (TypeError, ValueError)) else f'{type(error).__name__}: '
        raise ConfigError(f'{key}: {kind}{error}{hint}') from error


def _check_loss(loss: Any, student: Tensor, teacher: Tensor, key: str) -> None:
    """Whether a loss of the dry run is what can be minimized."""
    if not isinstance(loss, Tensor) or loss.dim():
        given = f'a tensor of shape {tuple(loss.shape)}' if isinstance(loss, Tensor) else f'{loss!r:.100}'
        raise ConfigError(f'{key}: expected a loss that gives one number, a tensor of shape (), got {given}.')
    if not loss.isfinite() and _is_moderate(student) and _is_moderate(teacher):
        raise ConfigError(f'{key}: the loss of one small image is {loss.item()}; look at the options of the loss.')


def _is_moderate(feature: Tensor) -> bool:
    """Whether no loss should overflow; parameters that were not initialized yet hold whatever was in memory."""
    return bool((feature.abs() < 1e6).all())  # false of NaN
