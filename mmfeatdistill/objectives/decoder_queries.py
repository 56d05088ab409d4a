"""Decoders of Deformable DETR and DINO in mmdet, run on any queries."""
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor

from mmfeatdistill.errors import did_you_mean

NECK, ENCODER = 'neck', 'encoder'
_METHODS = ('pre_transformer', 'pre_decoder', 'forward_decoder')

Start = Mapping[str, Tensor]
"""What a decoder starts from, by the names of its arguments: ``query``, ``reference_points``, of Deformable DETR also
``query_pos``; shape (N, M, width), of the reference points 2 or 4 fractions of the image."""


class Memory(NamedTuple):
    """An image as a decoder sees it.

    Attributes:
        encoded (Tensor): What the encoder gives, shape (N, L, width).
        arguments (dict): What else the decoder is told of it: masks and sizes of the levels.
    """

    encoded: Tensor
    arguments: Mapping[str, Any]


def check_detector(model: Any, side: str) -> None:
    """Refuses a network whose decoder is not known here.

    Args:
        model (nn.Module): A detector.
        side (str): Whose it is, for the message.

    Raises:
        ValueError: It lacks what is needed.
    """
    if not all(hasattr(model, name) for name in _METHODS) or not hasattr(getattr(model, 'decoder', None), 'num_layers'):
        raise ValueError(f"the {side} is {type(model).__name__}{did_you_mean(type(model).__name__, _KNOWN)} Only "
                         f'{" and ".join(_KNOWN)} of mmdet are known here, whose decoders start from queries and '
                         'reference points.')


_KNOWN = ('DeformableDETR', 'DINO')


def memory_of(model: Any, levels: Sequence[Tensor], encoded: Tensor, data_samples: Sequence[Any]) -> Memory:
    """What a decoder reads of a batch.

    Args:
        model (nn.Module): The detector.
        levels (Sequence[Tensor]): What its neck gave; only their sizes count.
        encoded (Tensor): What its encoder gave.
        data_samples (Sequence): Of the batch, by which the padding is masked.

    Returns:
        Memory: For :func:`decode`.
    """
    with torch.no_grad():
        _, arguments = model.pre_transformer(tuple(levels), data_samples)
    return Memory(encoded, arguments)


def start_of(model: Any, memory: Memory) -> Start:
    """What a detector in eval mode starts its decoder from.

    Args:
        model (nn.Module): The detector.
        memory (Memory): Of a batch.

    Returns:
        dict[str, Tensor]: See :data:`Start`.

    Raises:
        ValueError: It picks its queries among the positions of the image, and there are too few.
    """
    positions = memory.encoded.shape[1]
    if getattr(model, 'as_two_stage', False) and positions < model.num_queries:
        raise ValueError(f'{type(model).__name__} picks {model.num_queries} queries among the positions of an image, '
                         f'and has {positions} here; larger images, or fewer num_queries, are needed.')
    arguments, _ = model.pre_decoder(memory.encoded, memory.arguments['memory_mask'],
                                     memory.arguments['spatial_shapes'])
    return {name: value for name, value in arguments.items() if name != 'memory' and isinstance(value, Tensor)}


def with_general_points(start: Start, count: int, generator: torch.Generator) -> Start:
    """Puts queries at random places behind those of a start.

    Args:
        start (dict[str, Tensor]): See :data:`Start`.
        count (int): How many.
        generator (torch.Generator): Draws them, on the CPU, the same ones for all images.

    Returns:
        dict[str, Tensor]: Reference points are uniform over the image, of sides too where boxes are meant; all else is
        that of queries that are drawn with replacement.

    Examples:
        >>> start = dict(query=torch.ones(2, 3, 8), reference_points=torch.zeros(2, 3, 4))
        >>> {name: tuple(value.shape) for name, value in
        ...  with_general_points(start, 5, torch.Generator()).items()}
        {'query': (2, 8, 8), 'reference_points': (2, 8, 4)}
    """
    own = start['reference_points']
    points = torch.rand(count, own.shape[2], generator=generator).to(own).expand(len(own), -1, -1)
    drawn = torch.randint(own.shape[1], (count,), generator=generator).to(own.device)
    return {name: torch.cat([value, points if name == 'reference_points' else value[:, drawn]], 1)
            for name, value in start.items()}


def decode(model: Any, memory: Memory, start: Start) -> tuple[Tensor, Tensor]:
    """Runs a decoder and the box head behind it.

    Args:
        model (nn.Module): The detector.
        memory (Memory): Its own, of a batch.
        start (dict[str, Tensor]): Of this or another detector.

    Returns:
        tuple[Tensor, Tensor]: Of each layer, the logits of the classes, shape (layers, N, M, K), and the boxes, center
        and sides as fractions of the image, shape (layers, N, M, 4).
    """
    found = model.forward_decoder(memory=memory.encoded, **start, **memory.arguments)
    return model.bbox_head(found['hidden_states'], found['references'])


def form_of(start: Start) -> dict[str, Optional[int]]:
    """What two detectors must have in common to share queries: which arguments, and the width of each.

    Args:
        start (dict[str, Tensor]): See :data:`Start`.

    Returns:
        dict[str, int | None]: By name; None for reference points, which may be points or boxes.

    Examples:
        >>> form_of(dict(query=torch.ones(2, 3, 8), reference_points=torch.zeros(2, 3, 4)))
        {'query': 8, 'reference_points': None}
    """
    return {name: None if name == 'reference_points' else value.shape[2] for name, value in start.items()}
