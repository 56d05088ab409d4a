"""Which sizes of images a network takes, found where it fails on one."""
from collections.abc import Callable, Sequence
from typing import Any, Optional

import torch
from torch import Tensor
from torch.nn import functional as F

_MULTIPLES = (2, 4, 8, 14, 16, 32, 64, 128)


def fitting_multiple(run: Callable[[Tensor], Any], images: Tensor) -> Optional[int]:
    """What the sides have to be multiples of, by trying padded copies of a batch on which a network fails.

    Args:
        run (Callable): Runs the network on a batch; may raise anything.
        images (Tensor): The batch, shape (N, C, H, W).

    Returns:
        int: The smallest multiple that serves; None where none does.

    Examples:
        >>> fitting_multiple(lambda batch: batch.unflatten(-1, (-1, 4)), torch.zeros(1, 3, 8, 6))
        4
    """
    height, width = images.shape[-2:]
    for multiple in _MULTIPLES:
        sides = [-(-side // multiple) * multiple for side in (height, width)]
        if sides != [height, width] and _runs(run, F.pad(images, (0, sides[1] - width, 0, sides[0] - height))):
            return multiple
    return None


def fitting_size(run: Callable[[Tensor], Any], images: Tensor, known: Sequence[int], key: str) -> str:
    """What can be said of a network that takes another size than that of a batch on which it fails.

    Args:
        run (Callable): Runs the network on a batch; may raise anything.
        images (Tensor): The batch, shape (N, C, H, W).
        known (Sequence[int]): The shape of a batch on which it ran.
        key (str): Of the teacher in the config.

    Returns:
        str: A sentence; empty where it fails on that size too.
    """
    if known and _runs(run, F.interpolate(images.float(), tuple(known[-2:])).to(images.dtype)):
        return (f'It takes images of {known[-2]} x {known[-1]}: {key}.input=dict(size=({known[-2]}, {known[-1]})) '
                'resizes them for the teacher alone.')
    return ''


@torch.no_grad()
def _runs(run: Callable[[Tensor], Any], images: Tensor) -> bool:
    try:
        run(images)
    except Exception:  # noqa: BLE001, networks fail on sizes in any way
        return False
    return True
