"""The twin: a network that is its own teacher has nothing to learn, so a loss shows that two things are compared."""
import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmfeatdistill.taps.dry_run import probe, run_entry
from mmfeatdistill.taps.isolation import eval_isolated, training_isolated
from mmfeatdistill.taps.reader import TapReader
from mmfeatdistill.taps.training_run import compare_training


class TwinTap(NamedTuple):
    """What came of a tap.

    Attributes:
        tap (str): The tap.
        refused (str): Why it is refused when a distiller is built; empty if it is accepted.
        difference (float): Mean square of the difference over that of the feature, the largest of its features; NaN
            where the tap is refused.
    """

    tap: str
    refused: str
    difference: float


@torch.no_grad()
def check_twin(model: nn.Module, taps: Sequence[str], inputs: Tensor, data_samples: Any) -> list[TwinTap]:
    """Compares what a network gives in a training step with what its copy gives as a teacher.

    Statistics stay as they are and dropout is left out, so the same tensors have the same values.

    Args:
        model (nn.Module): An MM model; it is left as it was.
        taps (Sequence[str]): What is read; each is refused or accepted as when a distiller is built.
        inputs (Tensor): A batch as its data preprocessor gives it, shape (N, C, H, W).
        data_samples (list): Its data samples, with labels.

    Returns:
        list[TwinTap]: In the order of the taps.

    Raises:
        ValueError: A tap names no module, or one that does not run.
    """
    reader, twin = TapReader(model, taps, 'student'), copy.deepcopy(model)
    dry_run, _ = probe(model, reader)
    refused = compare_training(dry_run, taps)
    teacher = TapReader(twin, taps, 'teacher')
    _, entry = probe(twin, teacher)
    accepted = [tap for tap in taps if tap not in refused]
    with eval_isolated(twin):
        targets = teacher.read_until_complete(lambda: run_entry(twin, entry, inputs, data_samples), accepted,
                                              inputs.shape[-2:])
    with training_isolated(model):
        features, _ = reader.read(lambda: model(inputs, data_samples, mode='loss'), inputs.shape[-2:])
    return [TwinTap(tap, refused[tap], torch.nan) if tap in refused else
            TwinTap(tap, '', max(map(_difference, features[tap], targets[tap]))) for tap in taps]


def _difference(student: Tensor, teacher: Tensor) -> float:
    if student.shape != teacher.shape:
        return float('inf')
    scale = teacher.double().square().mean().clamp(min=1e-24)
    return float((student.double() - teacher.double()).square().mean() / scale) if teacher.numel() else 0.0
