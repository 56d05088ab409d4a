"""The twin: a network that is its own teacher has nothing to learn, so a loss shows that two things are compared."""
import copy
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmfeatdistill.taps.dry_run import probe, run_entry
from mmfeatdistill.taps.dummy_batch import has_masks, labeled_sample, library_of
from mmfeatdistill.taps.isolation import eval_isolated, training_isolated
from mmfeatdistill.taps.reader import TapReader
from mmfeatdistill.taps.tap import TapsNotReached
from mmfeatdistill.taps.training_run import compare_training

TOLERANCE = 1e-6
"""Mean square over that of the feature, up to which two features are the same."""


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


    @property
    def is_error(self) -> bool:
        """Whether it is accepted and does not compare what it says."""
        return not self.refused and not self.difference < TOLERANCE


@torch.no_grad()
def check_twin(model: nn.Module, taps: Sequence[str], inputs: Optional[Tensor] = None,
               data_samples: Any = None) -> list[TwinTap]:
    """Compares what a network gives in a training step with what its copy gives as a teacher.

    Statistics stay as they are and dropout is left out, so the same tensors have the same values.

    Args:
        model (nn.Module): An MM model; it is left as it was.
        taps (Sequence[str]): What is read; each is refused or accepted as when a distiller is built.
        inputs (Tensor, optional): A batch as its data preprocessor gives it, shape (N, C, H, W). Defaults to None: two
            random images of the size of the dry run, with random labels.
        data_samples (list, optional): Its data samples, with labels.

    Returns:
        list[TwinTap]: In the order of the taps; none where the network does not run so far on random labels.

    Raises:
        ValueError: A tap names no module, or one that does not run.
    """
    library = library_of(model)
    if library is None:
        return []
    reader, twin = TapReader(model, taps, 'student'), copy.deepcopy(model)
    dry_run, _ = probe(model, reader)
    if inputs is None:
        inputs, data_samples = _random_batch(dry_run.inputs, library, with_masks=has_masks(model))
    refused = compare_training(dry_run, taps)
    teacher = TapReader(twin, taps, 'teacher')
    _, entry = probe(twin, teacher)
    accepted = [tap for tap in taps if tap not in refused]
    for tap in refused:
        reader.layouts.pop(tap)  # it may give another number of tensors, which is an error where layouts are known
    with eval_isolated(twin):
        targets = teacher.read_until_complete(lambda: run_entry(twin, entry, inputs, data_samples), accepted,
                                              inputs.shape[-2:])
    def run() -> None:
        try:
            model(inputs, data_samples, mode='loss')
        except Exception as error:  # noqa: BLE001 - whatever losses cannot do with random labels, after the features
            print_log(f'The losses of the twin could not be computed on random labels: {error}', logger='current',
                      level=logging.DEBUG)

    try:
        with training_isolated(model):
            features, _ = reader.read(run, inputs.shape[-2:])
    except TapsNotReached:
        return []
    return [TwinTap(tap, refused[tap], torch.nan) if tap in refused else
            TwinTap(tap, '', max(map(_difference, features[tap], targets[tap]))) for tap in taps]


def _random_batch(like: Tensor, library: str, with_masks: bool) -> tuple[Tensor, list[Any]]:
    generator = torch.Generator().manual_seed(0)
    height, width = like.shape[-2:]
    images = torch.randn(2, *like.shape[1:], generator=generator).to(like)
    return images, [labeled_sample(library, height, width, generator, with_masks, with_masks).to(like.device)
                    for _ in images]


def _difference(student: Tensor, teacher: Tensor) -> float:
    if student.shape != teacher.shape:
        return float('inf')
    scale = teacher.double().square().mean().clamp(min=1e-24)
    return float((student.double() - teacher.double()).square().mean() / scale) if teacher.numel() else 0.0
