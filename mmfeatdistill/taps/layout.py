"""How a tapped tensor lies over the image: which dimensions are positions, and how many pixels apart they are."""
import math
from collections.abc import Sequence
from itertools import product
from typing import Literal, NamedTuple, Optional

from torch import Tensor

Kind = Literal['map', 'channels_last', 'transposed', 'tokens', 'tokens_last', 'plain']

_MAX_EXTRA = 8
"""Class, distillation and register tokens of the networks that are known, at most."""


class Layout(NamedTuple):
    """The layout of one tapped tensor.

    Attributes:
        kind (str): ``'map'`` for (N, C, H, W), ``'channels_last'`` for (N, H, W, C), ``'transposed'`` for (N, C, W, H),
            ``'tokens'`` for (N, L, C) and ``'tokens_last'`` for (N, C, L) whose L positions are a grid over the image,
            ``'plain'`` for anything that has no positions over the image, such as vectors and queries.
        stride (float, optional): Pixels of the input from one position to the next; None where nothing shows it.
        extra_tokens (int): How many tokens stand before those of the grid, as class and register tokens do.
    """

    kind: Kind
    stride: Optional[float] = None
    extra_tokens: int = 0


def find_layout(square: Tensor, tall: Optional[Tensor], side: int) -> Layout:
    """Finds the layout of a tensor by what a change of the image's height changes in it.

    Args:
        square (Tensor): The tensor of one image of ``side`` x ``side`` pixels.
        tall (Tensor, optional): The same of an image that is twice as high; None where the network takes one size only,
            in which case the layout is found by the proportions of ``square``.
        side (int): Pixels.

    Returns:
        Layout: Its layout.

    Examples:
        >>> import torch
        >>> find_layout(torch.zeros(1, 8, 8, 768), torch.zeros(1, 16, 8, 768), side=128)
        Layout(kind='channels_last', stride=16.0, extra_tokens=0)
        >>> find_layout(torch.zeros(1, 65, 32), torch.zeros(1, 129, 32), side=128)
        Layout(kind='tokens', stride=16.0, extra_tokens=1)
    """
    if square.dim() not in (3, 4):
        return Layout('plain')
    if tall is None or tall.dim() != square.dim():
        return _by_proportions(square, side)
    changed = [axis for axis in range(1, square.dim()) if square.shape[axis] != tall.shape[axis]]
    if len(changed) != 1:
        return Layout('map' if square.dim() == 4 else 'plain')
    [axis] = changed
    before, after = square.shape[axis], tall.shape[axis]
    if square.dim() == 4:
        stride = side / (after - before) if after > before else None
        return Layout(('channels_last', 'map', 'transposed')[axis - 1], stride)
    # As many positions again for as many pixels again: what is left over stands for no position.
    return _grid('tokens' if axis == 1 else 'tokens_last', before, 2 * before - after, side)


def to_map(tensor: Tensor, layout: Layout, size: Optional[Sequence[int]]) -> Tensor:
    """Brings a tapped tensor to (N, C, H, W) where its layout is known; a view.

    Args:
        tensor (Tensor): As the network gave it.
        layout (Layout): As :func:`find_layout` found it.
        size (Sequence[int], optional): Height and width of the images, for tokens.

    Returns:
        Tensor: The map without class and register tokens; a ``'plain'`` tensor as it is.

    Raises:
        ValueError: The tokens are no grid over an image of this size.

    Examples:
        >>> import torch
        >>> to_map(torch.zeros(2, 41, 32), Layout('tokens', 16.0, extra_tokens=1), size=(128, 80)).shape
        torch.Size([2, 32, 8, 5])
    """
    if layout.kind == 'channels_last':
        return tensor.permute(0, 3, 1, 2)
    if layout.kind == 'transposed':
        return tensor.transpose(2, 3)
    if layout.kind in ('map', 'plain'):
        return tensor
    tokens = tensor.transpose(1, 2) if layout.kind == 'tokens' else tensor
    tokens = tokens[:, :, layout.extra_tokens:]
    return tokens.unflatten(2, _grid_over(size, layout, tokens.shape[2]))


def _grid_over(size: Optional[Sequence[int]], layout: Layout, positions: int) -> tuple[int, int]:
    """Rows and columns of tokens; networks round the last position up or down."""
    assert layout.stride is not None, 'tokens of a grid have a stride'
    if size is None:
        raise ValueError('tokens can be laid over a batch of images in one tensor only.')
    for round_rows, round_columns in product((math.ceil, math.floor), repeat=2):
        rows, columns = round_rows(size[0] / layout.stride), round_columns(size[1] / layout.stride)
        if rows * columns == positions:
            return rows, columns
    raise ValueError(f'{positions} tokens are no grid of stride {layout.stride:g} over an image of {size[0]} x '
                     f"{size[1]} pixels. Tap the output of a backbone with out_type='featmap'.")


def _by_proportions(square: Tensor, side: int) -> Layout:
    if square.dim() == 4:
        _, first, second, third = square.shape
        is_last = first == second != third and side % first == 0
        return Layout('channels_last' if is_last else 'map', side / (first if is_last else second))
    # (N, L, C): L is a square and a few tokens more.
    for extra in range(_MAX_EXTRA + 1):
        if square.shape[1] - extra > 1 and side % (math.isqrt(square.shape[1] - extra) or 1) == 0:
            layout = _grid('tokens', square.shape[1], extra, side)
            if layout.kind != 'plain':
                return layout
    return Layout('plain')


def _grid(kind: Kind, tokens: int, extra: int, side: int) -> Layout:
    positions = tokens - extra
    rows = math.isqrt(max(positions, 0))
    if extra < 0 or rows == 0 or rows * rows != positions:
        return Layout('plain')
    return Layout(kind, side / rows, extra)
