"""How a tapped tensor lies over the image: which dimensions are positions, and how many pixels apart they are."""
import math
from collections.abc import Sequence
from itertools import product
from typing import Literal, NamedTuple, Optional

import torch
from torch import Tensor

Kind = Literal['map', 'channels_last', 'transposed', 'tokens', 'tokens_last', 'flat', 'plain']

_MAX_EXTRA = 8
"""Class, distillation and register tokens of the networks that are known, at most."""


class Layout(NamedTuple):
    """The layout of one tapped tensor.

    Attributes:
        kind (str): ``'map'`` for (N, C, H, W), ``'channels_last'`` for (N, H, W, C), ``'transposed'`` for (N, C, W, H),
            ``'tokens'`` for (N, L, C) and ``'tokens_last'`` for (N, C, L) whose L positions are a grid over the image,
            ``'flat'`` for (N, L) whose length follows from the size of the image, as where a map was flattened,
            ``'plain'`` for anything that has no positions over the image, such as vectors, queries, and the attention
            of every token to every other.
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
    if square.dim() == 2 and tall is not None and tall.dim() == 2 and tall.shape[1] > square.shape[1]:
        return Layout('flat')
    if square.dim() not in (3, 4):
        return Layout('plain')
    if tall is None or tall.dim() != square.dim():
        return _by_proportions(square, side)
    changed = [axis for axis in range(1, square.dim()) if square.shape[axis] != tall.shape[axis]]
    if changed == [1] and (square.shape[1], tall.shape[1]) == (1, 2):
        # The number of images: what all layers of a decoder give is stacked in front of it.
        return Layout('plain')
    if len(changed) != 1:
        # Both sides of an attention grow with the image; those of a pooled map stay.
        return Layout('plain' if square.dim() == 3 or changed else 'map')
    [axis] = changed
    before, after = square.shape[axis], tall.shape[axis]
    if square.dim() == 4:
        stride = _map_stride(before, after, side) if after > before else None
        return Layout(('channels_last', 'map', 'transposed')[axis - 1], stride)
    return _find_grid('tokens' if axis == 1 else 'tokens_last', before, after, side)


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
    if layout.kind in ('map', 'flat', 'plain'):
        return tensor
    tokens = tensor.transpose(1, 2) if layout.kind == 'tokens' else tensor
    tokens = tokens[:, :, layout.extra_tokens:]
    return tokens.unflatten(2, _grid_over(size, layout, tokens.shape[2]))


def without_last_extra(layout: Layout, square: Tensor, changed: Tensor) -> Layout:
    """Finds out whether the tokens that stand for no position come last, as those of mmseg's Segmenter do.

    Numbers of tokens do not show it. Where a patch of the image changes, its own token changes most.

    Args:
        layout (Layout): With extra tokens, as :func:`find_layout` found it.
        square (Tensor): The tensor of the square image.
        changed (Tensor): The same of two images: one whose first patch is another, and one whose last patch is.

    Returns:
        Layout: As it was, or plain: tokens whose grid does not end the row are matched one by one.

    Examples:
        >>> import torch
        >>> tokens, changed = torch.zeros(1, 5, 8), torch.zeros(2, 5, 8)
        >>> changed[0, 0], changed[1, 3] = 1, 1
        >>> without_last_extra(Layout('tokens', 16.0, extra_tokens=1), tokens, changed).kind
        'plain'
    """
    difference = (changed - square).abs().sum(2 if layout.kind == 'tokens' else 1)
    first, last = difference.argmax(1).tolist()
    is_last = first == 0 and last == difference.shape[1] - 1 - layout.extra_tokens
    return Layout('plain') if is_last else layout


def _grid_over(size: Optional[Sequence[int]], layout: Layout, positions: int) -> tuple[int, int]:
    """Rows and columns of tokens; networks round the last position up or down."""
    assert layout.stride is not None, 'tokens of a grid have a stride'
    if size is None:
        raise ValueError('tokens can be laid over a batch of images in one tensor only.')
    # The stride is known no better than the small images of the dry run show it: others near by may be meant.
    near = [layout.stride, *range(math.ceil(0.8 * layout.stride), math.floor(1.25 * layout.stride) + 1)]
    for stride, round_rows, round_columns in product(near, (math.ceil, math.floor), (math.ceil, math.floor)):
        rows, columns = round_rows(size[0] / stride), round_columns(size[1] / stride)
        if rows * columns == positions:
            return rows, columns
    raise ValueError(f'{positions} tokens are no grid of stride {layout.stride:g} over an image of {size[0]} x '
                     f"{size[1]} pixels. Tap the output of a backbone with out_type='featmap'.")


def _map_stride(rows: int, tall_rows: int, side: int) -> float:
    """Pixels between rows: a power of two where one gives so many, and the distance that they show otherwise.

    Padded convolutions round up, and a pooling, as for the outer levels of NAS-FPN, rounds down.
    """
    powers = [2.0 ** exponent for exponent in range(int(math.log2(side)) + 1)]
    fitting = (power for round_, power in product((math.ceil, math.floor), powers)
               if (round_(side / power), round_(2 * side / power)) == (rows, tall_rows))
    return next(fitting, side / (tall_rows - rows))


def _by_proportions(square: Tensor, side: int) -> Layout:
    if square.dim() == 4:
        _, first, second, third = square.shape
        if second == third and _is_attention(square):
            return Layout('plain')
        is_last = first == second != third and side % first == 0
        return Layout('channels_last' if is_last else 'map', side / (first if is_last else second))
    # Positions are a square and a few tokens more. Where that is so along both dimensions, nothing tells which.
    grids = [layout for kind, count in (('tokens', square.shape[1]), ('tokens_last', square.shape[2]))
             if (layout := _square_grid(kind, count, side)).kind != 'plain']  # type: ignore[arg-type]
    return grids[0] if len(grids) == 1 else Layout('plain')


def _is_attention(tensor: Tensor) -> bool:
    """Whether rows are shares of one, as a softmax leaves them; of one position, a sigmoid does so too."""
    sums = tensor.sum(-1)
    return tensor.shape[-1] > 1 and bool((tensor >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)


def _square_grid(kind: Kind, tokens: int, side: int) -> Layout:
    for extra in range(_MAX_EXTRA + 1):
        rows = math.isqrt(max(tokens - extra, 0))
        if rows > 1 and rows * rows == tokens - extra and side % rows == 0:
            return Layout(kind, side / rows, extra)
    return Layout('plain')


def _find_grid(kind: Kind, tokens: int, tall_tokens: int, side: int) -> Layout:
    """The grid that has so many positions on the square image, and so many on the one twice as high.

    More extra tokens than networks are known to have are none: mmseg's Segmenter has one for each class, at the end.
    """
    found = []
    for extra in range(_MAX_EXTRA + 1):
        rows = math.isqrt(max(tokens - extra, 0))
        if rows == 0 or rows * rows != tokens - extra or (tall_tokens - extra) % rows:
            continue
        strides = _strides(rows, (tall_tokens - extra) // rows, side)
        if strides:
            found.append(Layout(kind, strides[-1], extra))
    if tall_tokens == 2 * tokens:
        # Nothing stands beside the positions. What is no grid then are the levels of a DETR's encoder, one after the
        # other: 16 and 4 of them would pass for patches of 14 pixels with 4 registers.
        found = [layout for layout in found if layout.extra_tokens == 0]
    return found[0] if len(found) == 1 else Layout('plain')


def _strides(rows: int, tall_rows: int, side: int) -> list[float]:
    """Strides that give so many rows, rounded up or down; the one that needs no rounding comes last."""
    if side % rows == 0 and tall_rows == 2 * rows:
        return [side / rows]
    return [float(stride) for stride in range(1, side + 1) if any(
        (round_(side / stride), round_(2 * side / stride)) == (rows, tall_rows) for round_ in (math.ceil, math.floor))]
