"""Where two networks are matched: proposals by what a method wants, found by running both on a small image."""
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple, Optional

from torch import Tensor, nn

from mmfeatdistill.planning.networks import Network
from mmfeatdistill.taps.dry_run import SIZES, probe, probe_all
from mmfeatdistill.taps.layout import Layout
from mmfeatdistill.taps.reader import TapReader


class NoTaps(ValueError):
    """Nothing can be proposed; the message says why."""


class Proposal(NamedTuple):
    """Taps for an objective.

    Attributes:
        taps (list[str | dict]): As a config has them.
        reason (str): Why these.
    """

    taps: list[Any]
    reason: str


class _Level(NamedTuple):
    """One feature of a network, by the tap that reads it alone; its position is counted from both ends."""

    tap: str
    layout: Layout
    positions: set[int]
    area: int


def propose(role: str, student: Network, teacher: Network) -> Proposal:
    """Proposes taps.

    Args:
        role (str): One of :data:`ROLES`:

            - ``'features'``: the levels of the neck, or of the backbone where there is no neck, of detectors; the last
              stage that the decode head reads of segmenters; the last stage of the backbone of classifiers;
            - ``'stages'``: the end of each stage of the backbone, ``'preactivations'``: the same in front of the
              activation that ends it;
            - ``'logits'``: the layer that gives a channel for each class, ``'penultimate'``: what goes into it.
        student (Network): The student.
        teacher (Network): Its teacher.

    Returns:
        Proposal: Taps that both networks have; that an objective can match them is not known yet.

    Raises:
        NoTaps: There are none.
    """
    return ROLES[role](student, teacher)


def _features(student: Network, teacher: Network) -> Proposal:
    finders = dict(detection=_neck_levels, segmentation=_last_stages, classification=_last_maps)
    return finders[student.task](student, teacher)


def _neck_levels(student: Network, teacher: Network) -> Proposal:
    """Levels of equal stride: of both necks, else of what both have."""
    parts = ('neck', 'backbone')
    pairs = [('neck', 'neck'), ('backbone', 'backbone'), ('neck', 'backbone'), ('backbone', 'neck')]
    levels, targets = ({part: _levels(network.model, part) for part in parts} for network in (student, teacher))
    for own, other in pairs:
        matched = _by_stride(levels[own], targets[other])
        if matched:
            strides = ', '.join(f'{stride:g}' for stride in matched)
            where = f'both {own}s' if own == other else f"the student's {own} and the teacher's {other}"
            return Proposal(_written(list(matched.values()), own, other, levels[own], targets[other]),
                            f'the levels of {where} with stride {strides}')
    first, second = ([level for part in parts if of[part] for level in of[part]] for of in (levels, targets))
    if not first or not second:
        raise NoTaps('neither neck nor backbone gives maps in both networks')
    own_level, target = min(product(first, second), key=lambda pair: _stride_ratio(*pair))
    return Proposal([_pair(own_level.tap, target.tap)],
                    f'no strides agree; {own_level.layout.stride:g} and {target.layout.stride:g} are the nearest, and '
                    "the student's map is resized")


def _stride_ratio(student: _Level, teacher: _Level) -> float:
    first, second = float(student.layout.stride or 1), float(teacher.layout.stride or 1)
    return max(first, second) / min(first, second)


def _by_stride(student: Sequence[_Level], teacher: Sequence[_Level]) -> dict[float, tuple[_Level, _Level]]:
    """The last level of each stride that both have."""
    own, other = (_last_of_each_stride(levels) for levels in (student, teacher))
    return {float(stride): (own[stride], other[stride]) for stride in sorted(own, key=lambda stride: stride or 0)
            if stride is not None and stride in other}


def _last_of_each_stride(levels: Sequence[_Level]) -> dict[Any, _Level]:
    """By stride, without those that convolutions without padding have cropped, as SSD's last, which see less."""
    largest: dict[Any, int] = {}
    for level in levels:
        largest[level.layout.stride] = max(largest.get(level.layout.stride, 0), level.area)
    return {level.layout.stride: level for level in levels if level.area == largest[level.layout.stride]}


def _written(matched: Sequence[tuple[_Level, _Level]], own: str, other: str, student: Sequence[_Level],
             teacher: Sequence[_Level]) -> list[Any]:
    """The parts as a whole, where levels of equal stride find each other; else level by level."""
    if all(len({level.layout.stride for level in levels}) == len(levels) for levels in (student, teacher)):
        if len(matched) > 1 or len(student) == len(teacher) == 1:
            return [_pair(own, other)]
    return [_pair(first.tap, second.tap) for first, second in matched]


def _last_stages(student: Network, teacher: Network) -> Proposal:
    """What decode heads see of the deepest stage."""
    own, target = (_decoded(network) for network in (student, teacher))
    return Proposal([_pair(own.tap, target.tap)],
                    f'the last stage that the decode heads read, {_strides(own, target)}')


def _strides(student: _Level, teacher: _Level) -> str:
    own, target = student.layout.stride, teacher.layout.stride
    return f'of stride {own:g} in both' if own == target else (
        f"of stride {own:g} and {target:g}; the student's map is resized")


def _decoded(network: Network) -> _Level:
    """The coarsest of the levels that the (last) decode head reads."""
    model = network.model
    part = 'neck' if getattr(model, 'neck', None) is not None else 'backbone'
    levels = _levels(model, part)
    head = getattr(model, 'decode_head', None)
    head = head[-1] if isinstance(head, nn.ModuleList) else head
    index = getattr(head, 'in_index', None)
    read = [index] if isinstance(index, int) else list(index or [])
    if len(levels) > 1 and read:
        levels = [level for level in levels if level.positions & {*read}]
    if not levels:
        raise NoTaps(f'neither neck nor backbone of {network.name} gives maps')
    return max(levels, key=lambda level: level.layout.stride or 0)


def _last_maps(student: Network, teacher: Network) -> Proposal:
    """The last map of each backbone, or the vectors where one has no map."""
    found = [_last_map(network.model) for network in (student, teacher)]
    own, target = found
    if own is not None and target is not None:
        kinds = [level.layout.kind for level in (own, target)]
        tokens = ', tokens on their grid' if any('token' in kind for kind in kinds) else ''
        return Proposal([_pair(own.tap, target.tap)],
                        f'the last stage of the backbones{tokens}, {_strides(own, target)}')
    vectors = [next((tap for tap in ('neck', 'backbone') if _gives_vector(network.model, tap)), None)
               for network in (student, teacher)]
    if None in vectors:
        raise NoTaps('the backbones give neither maps nor vectors in both networks')
    return Proposal([_pair(str(vectors[0]), str(vectors[1]))],
                    'the pooled features, as one of the backbones gives no map')


def _last_map(model: nn.Module) -> Optional[_Level]:
    """The last level of the backbone, or of the last module in it that gives a map."""
    levels = _levels(model, 'backbone')
    if levels:
        return levels[-1]
    found = _survey(model)
    inside = [path for path, tensors in found.items() if path.startswith('backbone.')
              and len(tensors) == 1 and tensors[0].dim() in (3, 4)]
    # Outer modules end after the inner ones, and the last of all is what the head sees, normalized where it is.
    return next((level for path in reversed(inside[-_TRIED:]) for level in _levels(model, path)), None)


_TRIED = 12
"""Modules of a backbone without a map, from the last one back, in which one is looked for."""


def _gives_vector(model: nn.Module, tap: str) -> bool:
    tensors = _read(model, tap)
    return len(tensors) == 1 and tensors[0][0].dim() == 2


def _stages(student: Network, teacher: Network, suffix: str = '') -> Proposal:
    """The end of each stage: all of them where both networks have the same, else the last of each stride."""
    own, other = (_stage_levels(network.model) or ([] if suffix else _several_outputs(network.model))
                  for network in (student, teacher))
    for network, levels in ((student, own), (teacher, other)):
        if not levels:
            raise NoTaps(f'the stages of the backbone of {network.name} are no modules that give one map each')
    if [level.layout.stride for level in own] == [level.layout.stride for level in other]:
        pairs = list(zip(own, other))
    else:
        pairs = list(_by_stride(own, other).values())
    if not pairs:
        raise NoTaps('the stages of the two backbones have no stride in common')
    strides = ', '.join(f'{level.layout.stride:g}' for level, _ in pairs)
    return Proposal([_pair(first.tap + suffix, second.tap + suffix) for first, second in pairs],
                    f'the end of the stages of both backbones with stride {strides}')


def _preactivations(student: Network, teacher: Network) -> Proposal:
    return _stages(student, teacher, ':pre')


def _several_outputs(model: nn.Module) -> list[_Level]:
    """What the backbone returns, if that is several maps: the stages of Swin give positions and sizes apart."""
    levels = _levels(model, 'backbone')
    return levels if len(levels) > 1 else []


def _stage_levels(model: nn.Module) -> list[_Level]:
    """Modules right below the backbone, or in a list of modules there, that consist of blocks and give one map."""
    backbone = getattr(model, 'backbone', None)
    if backbone is None:
        return []
    stages = [f'backbone.{name}' for name in _children_of_stages(backbone)]
    ended = [path for path, tensors in _survey(model).items() if path in stages and len(tensors) == 1]
    return [level for path in ended for level in _levels(model, path)]


def _children_of_stages(backbone: nn.Module) -> Iterator[str]:
    for name, child in backbone.named_children():
        members = [(f'{name}.{key}', inner) for key, inner in child.named_children()] \
            if isinstance(child, nn.ModuleList) else [(name, child)]
        for path, member in members:
            if any(list(block.children()) for block in member.children()):
                yield path


def _logits(student: Network, teacher: Network, suffix: str = '') -> Proposal:
    unknown = [role for role, network in dict(student=student, teacher=teacher).items() if network.classes is None]
    if unknown:
        raise NoTaps(f'it is not known how many classes the {" and the ".join(unknown)} '
                     f'{"has" if len(unknown) == 1 else "have"}, as no head says it, so logits cannot be found; --taps '
                     'gives places')
    if student.classes != teacher.classes:
        raise NoTaps(f'the student has {student.classes} classes and the teacher {teacher.classes}, so their logits '
                     'stand for other things')
    taps = [_class_layer(network) for network in (student, teacher)]
    what = 'what goes into the layers' if suffix else 'the layers'
    return Proposal([_pair(taps[0] + suffix, taps[1] + suffix)], f'{what} that give a channel for each class')


def _penultimate(student: Network, teacher: Network) -> Proposal:
    return _logits(student, teacher, ':in')


def _class_layer(network: Network) -> str:
    """The last layer of the head with as many channels as classes."""
    head = dict(segmentation='decode_head', classification='head').get(network.task)
    if head is None:
        raise NoTaps('a detector has no one layer that classifies an image or its pixels')
    found = [path for path in _survey(network.model) if path.startswith(f'{head}.')
             and _width(network.model.get_submodule(path)) == network.classes]
    if not found:
        raise NoTaps(f'the {head} of {network.name} has no layer with a channel for each class')
    return found[-1]


def _width(module: nn.Module) -> Optional[int]:
    return getattr(module, 'out_features', getattr(module, 'out_channels', None)) \
        if isinstance(module, (nn.Linear, nn.Conv2d)) else None


def _levels(model: nn.Module, path: str) -> list[_Level]:
    """The maps of known stride that a module gives, each by a tap of its own."""
    read = _read(model, path)
    count = len(read)
    taps = [path] if count == 1 else [*(f'{path}[{index}]' for index in range(count - 1)), f'{path}[-1]']
    # The coarsest levels of a small image are too small to show a stride.
    return [_Level(tap, layout, {position, position - count}, tensor.shape[-2:].numel())
            for position, (tap, (tensor, layout)) in enumerate(zip(taps, read)) if layout.stride is not None]


def _read(model: nn.Module, path: str) -> list[tuple[Tensor, Layout]]:
    """What a module gives in the dry run, with the layouts; nothing where it does not exist or run."""
    try:
        tapped, _ = probe(model, TapReader(model, [path], 'network'))
    except ValueError:
        return []
    return list(zip(tapped[path], tapped.layouts(path)))


def _survey(model: nn.Module) -> dict[str, list[Tensor]]:
    """What every module gives, in the order in which they end, on the smallest image that the network takes."""
    found: dict[str, tuple[list[Tensor], int]] = {}
    for size in SIZES:
        found, failure = probe_all(model, size)
        if failure is None:
            break
    return {path: tensors for path, (tensors, _) in found.items()}


def _pair(student: str, teacher: str) -> Any:
    return student if student == teacher else dict(student=student, teacher=teacher)


ROLES = dict(features=_features, stages=_stages, preactivations=_preactivations, logits=_logits,
             penultimate=_penultimate)
"""What a method may ask for, by name."""
