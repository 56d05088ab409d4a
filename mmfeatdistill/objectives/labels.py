"""Labels of a batch, for objectives that look at them."""
from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor


def single_labels(data_samples: Optional[Sequence[Any]]) -> Tensor:
    """The one class of each image.

    Of images that were mixed (Mixup, CutMix) it is the class with the greatest share.

    Args:
        data_samples (Sequence, optional): Of a batch, as classifiers of mmpretrain take them.

    Returns:
        Tensor: Class indices, shape (N), on the device of the labels.

    Raises:
        ValueError: There are no labels, or an image has several or none.

    Examples:
        >>> from mmpretrain.structures import DataSample
        >>> single_labels([DataSample().set_gt_label(3), DataSample().set_gt_label(7)])
        tensor([3, 7])
        >>> single_labels([DataSample().set_gt_score(torch.tensor([0.0, 0.3, 0.7]))])
        tensor([2])
    """
    samples = data_samples or []
    labels = [sample.get('gt_label') for sample in samples]
    several = [label for label in labels if label is not None and label.numel() != 1]
    if several:
        raise ValueError(f'one class for each image is needed, and an image has the labels {several[0].tolist()}.')
    scores = [sample.get('gt_score') for sample in samples]
    if samples and all(score is not None for score in scores):
        return torch.stack(scores).argmax(1)
    if samples and all(label is not None for label in labels):
        return torch.cat(labels)
    given = type(samples[0]).__name__ if samples else data_samples
    raise ValueError("the data samples have no class ('gt_label'), as those of classifiers in mmpretrain have; got "
                     f'{given!r}.')
