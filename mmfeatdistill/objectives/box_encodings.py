"""What the outputs of a detector's head stand for: boxes and anchors in one encoding or another."""
from typing import Any, Optional

import torch
from torch import nn

_BOX = 4
"""Numbers of a box."""


def different_outputs(student: nn.Module, teacher: nn.Module, channels: int, are_outputs: bool) -> Optional[str]:
    """Why outputs of as many channels of two heads mean something else.

    Boxes are offsets to anchors, or distances to their sides, in units that differ from head to head; with several
    anchors at a position, each has channels of its own.

    Args:
        student (nn.Module): The head.
        teacher (nn.Module): The other head.
        channels (int): How many both give at a position.
        are_outputs (bool): Whether they are known to be what the heads return. Layers that give as many numbers as
            boxes have are taken for outputs, as many heads scale what their last layer gives.

    Returns:
        str: The end of a sentence; None where nothing speaks against comparing them.

    Examples:
        >>> different_outputs(nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), 8, are_outputs=True)
    """
    anchors, others = (_anchors(head) for head in (student, teacher))
    if are_outputs and anchors is not None and others is not None and not _is_same(anchors, others):
        return f'for other anchors: {_named(student, "prior_generator")} and {_named(teacher, "prior_generator")}'
    if not (_may_be_boxes(student, channels) and _may_be_boxes(teacher, channels)):
        return None
    encodings = [_encoding(head) for head in (student, teacher)]
    if encodings[0] != encodings[1] and None not in encodings:
        return f'boxes in other encodings: {encodings[0]} and {encodings[1]}'
    return None


def different_lengths(student: nn.Module, teacher: nn.Module, own: int, target: int) -> Optional[str]:
    """Why layers of two heads that give unlike numbers of channels are what gives their boxes.

    A box is four numbers, or a distribution over the values of each, as in GFL. Layers give them although heads scale
    what they return.

    Args:
        student (nn.Module): The head.
        teacher (nn.Module): The other head.
        own (int): How many channels the student's layer gives at a position.
        target (int): How many the teacher's gives.

    Returns:
        str: The end of a sentence; None where they are something else, such as features.

    Examples:
        >>> different_lengths(nn.Conv2d(3, 8, 1), nn.Conv2d(3, 9, 1), 8, 9)
    """
    lengths = [_box_length(head, channels) for head, channels in ((student, own), (teacher, target))]
    if own == target or None in lengths:
        return None
    return (f'boxes in other encodings: {type(student).__name__} with {own} numbers at a position and '
            f'{type(teacher).__name__} with {target}')


def head_of(model: nn.Module, path: str) -> nn.Module:
    """The module around a place that knows how boxes are encoded, such as a dense head.

    Args:
        model (nn.Module): A detector.
        path (str): Of a module in it.

    Returns:
        nn.Module: The place itself where there is none.

    Examples:
        >>> head_of(nn.Sequential(nn.ReLU()), '0')
        ReLU()
    """
    around = [path[:end] for end, letter in enumerate(f'{path}.') if letter == '.']
    named = dict(model.named_modules(remove_duplicate=False))
    modules = [named[place] for place in around if place in named]  # an objective may have a place of its own naming
    return next((module for module in modules if hasattr(module, 'bbox_coder') or hasattr(module, 'prior_generator')),
                modules[-1] if modules else model)


def _box_length(head: nn.Module, channels: int) -> Optional[int]:
    """Numbers of a box where a head with boxes gives so many channels for the boxes of a position."""
    bins, priors = getattr(head, 'reg_max', 0), getattr(head, 'num_base_priors', 1)
    if not hasattr(head, 'bbox_coder') and not hasattr(head, 'prior_generator'):
        return None
    lengths = {_BOX, _BOX * (bins + 1) if isinstance(bins, int) else _BOX}
    return next((length for length in lengths if channels == length * (priors if isinstance(priors, int) else 1)), None)


def _may_be_boxes(head: nn.Module, channels: int) -> bool:
    priors = getattr(head, 'num_base_priors', 1)
    return channels == _BOX * (priors if isinstance(priors, int) else 1)


def _encoding(head: nn.Module) -> Optional[str]:
    """The encoding by name, with what it divides by; heads without anchors scale distances each in its own way."""
    coder = getattr(head, 'bbox_coder', None)
    if coder is None:
        return type(head).__name__ if hasattr(head, 'prior_generator') else None
    units = {name: value for name, value in vars(coder).items() if name in ('means', 'stds')}
    said = f'{type(coder).__name__}({", ".join(f"{name}={list(value)}" for name, value in units.items())})'
    return said if units else f'{type(head).__name__} with {said}'


def _anchors(head: nn.Module) -> Optional[list[torch.Tensor]]:
    """The anchors of a position on each level, in strides of that level; None where there is one or none."""
    generator: Any = getattr(head, 'prior_generator', None)
    anchors = getattr(generator, 'base_anchors', None)
    if not anchors or len(anchors[0]) < 2:
        return None
    return [level / stride[0] for level, stride in zip(anchors, generator.strides)]


def _is_same(anchors: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(one.shape == other.shape and torch.allclose(one, other, atol=1e-3)
               for one, other in zip(anchors, others))


def _named(head: nn.Module, name: str) -> str:
    generator: Any = getattr(head, name)
    options = {key: getattr(generator, key, None) for key in ('ratios', 'scales')}
    shown = {key: value.tolist() if isinstance(value, torch.Tensor) else value for key, value in options.items()}
    return f'{type(generator).__name__}({", ".join(f"{key}={value}" for key, value in shown.items() if value)})'
