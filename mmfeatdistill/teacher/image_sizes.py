"""Which sizes of images a network takes, found where it fails on one."""
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_MULTIPLES = (2, 4, 8, 16, 32, 64, 128)


def fitting_sides(run: Callable[[Tensor], Any], images: Tensor, known: Sequence[int]) -> str:
    """What can be said about the sizes that a network takes, by trying padded copies of a batch on which it fails.

    Args:
        run (Callable): Runs the network on a batch; may raise anything.
        images (Tensor): The batch, shape (N, C, H, W).
        known (Sequence[int]): The shape of a batch on which it ran.

    Returns:
        str: A sentence; empty where it fails on all sizes.

    Examples:
        >>> fitting_sides(lambda batch: batch.unflatten(-1, (-1, 4)), torch.zeros(1, 3, 8, 6), (1, 3, 8, 8))[:61]
        'It takes sides that are multiples of 4, such as 8 x 8 here: h'
    """
    height, width = images.shape[-2:]
    for multiple in _MULTIPLES:
        sides = [-(-side // multiple) * multiple for side in (height, width)]
        if sides != [height, width] and _runs(run, F.pad(images, (0, sides[1] - width, 0, sides[0] - height))):
            return (f'It takes sides that are multiples of {multiple}, such as {sides[0]} x {sides[1]} here: have the '
                    f"student's images padded to those, by pad_size_divisor={multiple} in its data_preprocessor "
                    f"(size_divisor={multiple} in mmseg's), or crop to such a size in its pipeline.")
    if known and _runs(run, F.interpolate(images.float(), tuple(known[-2:])).to(images.dtype)):
        return (f'It takes images of {known[-2]} x {known[-1]}; have the pipeline of the student resize or crop to '
                'that size, or give a teacher that takes others.')
    return ''


@torch.no_grad()
def _runs(run: Callable[[Tensor], Any], images: Tensor) -> bool:
    try:
        run(images)
    except Exception:  # noqa: BLE001, networks fail on sizes in any way
        return False
    return True
