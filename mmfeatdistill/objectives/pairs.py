"""Which feature of a student is matched with which of its teachers', and how the two become comparable."""
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Optional

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmfeatdistill.errors import ConfigError, config_key
from mmfeatdistill.objectives.base import TapPair
from mmfeatdistill.registry import build
from mmfeatdistill.taps.dry_run import probe_larger
from mmfeatdistill.taps.feature_map import as_map, same_size, shape_of
from mmfeatdistill.taps.isolation import statistics_for
from mmfeatdistill.taps.layout import Layout
from mmfeatdistill.taps.reader import TappedPass

_FEW = 8
"""Vectors that each may have a meaning of their own, as class and register tokens do."""


class Feature(NamedTuple):
    """Where a feature is found among those of a pass."""

    tap: str
    position: int
    layout: Layout

    def of(self, tapped: TappedPass) -> Tensor:
        """The feature itself."""
        return tapped[self.tap][self.position]

    @property
    def is_in_head(self) -> bool:
        """Whether it is of a head, and so may be what the network predicts."""
        return 'head' in self.tap.partition('.')[0]

    def __str__(self) -> str:
        """Its tap, its position among several, and its stride."""
        stride = self.layout.stride
        return f'{self.tap}[{self.position}]' + (f' (stride {stride:g})' if stride is not None else '')


class FeaturePair(NamedTuple):
    """A feature of the student and the one of a teacher that it is matched with.

    Attributes:
        student (Feature): Of the student.
        teacher (Feature): Of the teacher.
        teacher_index (int): Which of the teachers that the objective reads.
        taps (TapPair): What was written.
    """

    student: Feature
    teacher: Feature
    teacher_index: int
    taps: TapPair

    def of(self, student: TappedPass, teachers: Sequence[TappedPass]) -> tuple[Tensor, Tensor]:
        """The two features in passes of the networks."""
        return self.student.of(student), self.target(teachers)

    def target(self, teachers: Sequence[TappedPass]) -> Tensor:
        """The teacher's feature."""
        return self.teacher.of(teachers[self.teacher_index])

    def has_tokens(self, student: Tensor, teacher: Tensor) -> bool:
        """Whether one of the two is no map over the image, and so cannot be resized."""
        return any(feature.dim() == 3 or (feature.dim() == 4 and place.layout.kind == 'plain')
                   for place, feature in ((self.student, student), (self.teacher, teacher)))

    def connect(self, connector: nn.Module, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Brings the two to one width and size.

        Args:
            connector (nn.Module): From the student's width to the teacher's; one with ``takes_teacher`` gets both maps.
            student (Tensor): Its feature.
            teacher (Tensor): The teacher's.

        Returns:
            tuple[Tensor, Tensor]: Two maps of one size, or two vectors: a loss that needs positions says so.
        """
        connected, target = same_size(run_connector(connector, student, teacher), as_map(teacher),
                                      self.has_tokens(student, teacher))
        if student.dim() == teacher.dim() == 2:
            return connected.flatten(1), target.flatten(1)
        return connected, target


def run_connector(connector: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    """Runs a connector on a feature.

    Args:
        connector (nn.Module): See :meth:`FeaturePair.connect`.
        student (Tensor): The student's feature.
        teacher (Tensor): The teacher's.

    Returns:
        Tensor: A map of the size of the student's.
    """
    own = as_map(student)
    maps = (own, as_map(teacher)) if getattr(connector, 'takes_teacher', False) else (own,)
    with statistics_for(connector, own):
        return connector(*maps)


def match_features(taps: Sequence[TapPair], student: TappedPass, teachers: Sequence[TappedPass],
                   key: str) -> list[FeaturePair]:
    """Pairs the features of the dry run, by stride where a tap gives several levels, and logs the pairs.

    Levels of equal stride belong together, in whatever order a network gives them; those that one side lacks are left
    out. Where a tap names the items that it selects, as ``'neck[1:4]'`` does, or gives one feature only, the features
    are paired as written, whatever their strides.

    Args:
        taps (Sequence[TapPair]): What an objective matches.
        student (TappedPass): The student in the dry run.
        teachers (Sequence[TappedPass]): Each teacher that is read.
        key (str): Where the objective stands in the config.

    Returns:
        list[FeaturePair]: In the order of the teachers, and of the taps.

    Raises:
        ConfigError: The features cannot be paired.
    """
    with config_key(f'{key}.taps'):
        pairs = [pair for index, teacher in enumerate(teachers) for pair_of_taps in taps
                 for pair in _match_tap(pair_of_taps, index, student, teacher)]
        for pair in pairs:
            _check(pair, *pair.of(student, teachers))
    _log_repeated(key, [pair.of(student, teachers) for pair in pairs], pairs)
    _log_queries(key, pairs, student, teachers)
    lines = [f'{pair.student} with {pair.teacher}'
             + (f' of teacher {pair.teacher_index}' if len(teachers) > 1 else '') for pair in pairs]
    print_log(f'{key}: matches {"; ".join(lines)}.', logger='current')
    for owner, tapped in (('student', student), *(('teacher', teacher) for teacher in teachers)):
        _log_calls(key, owner, tapped, {getattr(pair, owner).tap for pair in pairs})
    return pairs


def build_connectors(cfg: Optional[dict], pairs: Sequence[FeaturePair], student: TappedPass,
                     teachers: Sequence[TappedPass], key: str) -> nn.ModuleList:
    """Builds one connector for each pair of features.

    Args:
        cfg (dict, optional): Of the connectors; None for ``Identity``.
        pairs (Sequence[FeaturePair]): As :func:`match_features` gives them.
        student (TappedPass): The student in the dry run.
        teachers (Sequence[TappedPass]): Each teacher that is read.
        key (str): Where the objective stands in the config.

    Returns:
        nn.ModuleList: In the order of the pairs.

    Raises:
        ConfigError: A connector cannot be built, or needs positions where there is no grid.
    """
    connectors = nn.ModuleList()
    for pair in pairs:
        own, target = pair.of(student, teachers)
        if cfg is not None and pair.student.layout.kind == 'flat':
            raise ConfigError(f"{key}.taps: the student's {pair.student.tap!r} gives vectors whose length follows from "
                              f'the size of the image, {own.shape[1]} for the one of the dry run, so no connector can '
                              "be built for it. Tap a place that gives maps, such as 'backbone'.")
        connector = build(cfg or dict(type='Identity'), f'{key}.connector', student_shape=shape_of(own),
                          teacher_shape=shape_of(target))
        seen = {'student': own, 'teacher': target} if getattr(connector, 'takes_teacher', False) else {'student': own}
        for side, feature in seen.items():
            if getattr(connector, 'is_spatial', False) and feature.dim() == 3:
                raise ConfigError(
                    f'{key}.connector.type: {type(connector).__name__} looks at neighboring positions, and the '
                    f"{side}'s {getattr(pair, side).tap!r} gives tokens {tuple(feature.shape[1:])} that are no grid "
                    "over the image; use dict(type='Conv1x1'), or tap a place that gives a map.")
        connectors.append(connector.to(own.dtype))
    return connectors


def _log_repeated(key: str, features: Sequence[tuple[Tensor, Tensor]], pairs: Sequence[FeaturePair]) -> None:
    """Says where two taps are names of one tensor on both sides, whose weight then counts twice.

    By their values, as the dry run goes on with copies of what it reads; those of one value only show nothing.
    """
    shown = [(both, pair) for both, pair in zip(features, pairs) if all(f.numel() and f.min() < f.max() for f in both)]
    for (both, pair), (others, earlier) in ((later, first) for end, later in enumerate(shown) for first in shown[:end]):
        if pair.teacher_index == earlier.teacher_index and all(map(torch.equal, both, others)):
            print_log(f'{key}: {pair.student} is the same tensor as {earlier.student}, so its loss counts twice.',
                      logger='current', level=logging.WARNING)


def _log_queries(key: str, pairs: Sequence[FeaturePair], student: TappedPass, teachers: Sequence[TappedPass]) -> None:
    """Says where vectors are compared one by one that are as many for images of any size, as the queries of a DETR."""
    found = [pair for pair in pairs if all(
        place.layout.kind == 'plain' and feature.dim() == 3 and feature.shape[1] > _FEW
        for place, feature in zip(pair[:2], pair.of(student, teachers)))]
    if not found or not student.reader.layouts:
        return
    try:
        larger = probe_larger(student)
    except ValueError:  # a network that takes no larger images
        return
    for pair in found if larger.inputs.shape != student.inputs.shape else ():
        own, at_larger = (pair.student.of(tapped) for tapped in (student, larger))
        if own.shape == at_larger.shape:
            print_log(f'{key}: {pair.student} and {pair.teacher} are {own.shape[1]} vectors for an image of any size, '
                      'as the queries of a DETR are. They are compared in their order, which means something only '
                      "where the student starts from the teacher's queries; match the features of necks or encoders, "
                      "or what queries find, by type='TargetAware'.", logger='current', level=logging.WARNING)


def _log_calls(key: str, owner: str, tapped: TappedPass, taps: Collection[str]) -> None:
    """Says which call is read of a module that runs several times, as one that all levels share does."""
    for tap in tapped.reader.taps:
        calls = tapped.reader.calls[tap.text]
        if tap.text in taps and calls > 1 and not tap.is_each:
            print_log(f"{key}: the {owner}'s {tap.place.path!r} runs {calls} times in a pass, and its last call is "
                      f"read; '{tap.place.path}:each' reads every one.", logger='current', level=logging.WARNING)


def _match_tap(taps: TapPair, teacher_index: int, student: TappedPass, teacher: TappedPass) -> Iterator[FeaturePair]:
    own = [Feature(taps.student.text, *found) for found in enumerate(student.layouts(taps.student.text))]
    targets = [Feature(taps.teacher.text, *found) for found in enumerate(teacher.layouts(taps.teacher.text))]
    as_written = len(own) == len(targets) and (len(own) == 1 or taps.names_items)
    if as_written or [f.layout.stride for f in own] == [f.layout.stride for f in targets]:
        matched = list(zip(own, targets))
    else:
        matched = _match_by_stride(taps, _with_outer_strides(own, student), _with_outer_strides(targets, teacher))
    for pair in matched:
        yield FeaturePair(*pair, teacher_index, taps)


def _with_outer_strides(features: list[Feature], tapped: TappedPass) -> list[Feature]:
    """The features with the strides of levels that have one position on the small image, which shows none."""
    is_unknown = [feature.layout.kind == 'map' and feature.layout.stride is None for feature in features]
    if not any(is_unknown) or not tapped.reader.layouts:
        return features
    try:
        found = replace(probe_larger(tapped), scale=tapped.scale).layouts(features[0].tap)
    except ValueError:  # a network that takes no larger images
        return features
    if len(found) != len(features):
        return features
    return [feature._replace(layout=layout) if unknown and layout.kind == 'map' else feature
            for feature, layout, unknown in zip(features, found, is_unknown)]


def _example(taps: TapPair, own: Feature, target: Feature) -> str:
    """How a config names one feature of each side."""
    named = (f"{side}='{tap.text}{f'[{feature.position}]' if tap.items == slice(None) else ''}'"
             for (side, tap), feature in zip(taps._asdict().items(), (own, target)))
    return f'dict({", ".join(named)})'


def _match_by_stride(taps: TapPair, own: Sequence[Feature],
                     targets: Sequence[Feature]) -> list[tuple[Feature, Feature]]:
    given = (f"the student's {taps.student.text!r} gives features of stride {_strides(own)}, the teacher's "
             f'{taps.teacher.text!r} of stride {_strides(targets)}')
    example = _example(taps, own[0], targets[0])
    levels, target_levels = _levels(own), _levels(targets)
    if not levels or not target_levels:
        if len(own) == len(targets):
            return list(zip(own, targets))
        raise ValueError(f'{given}, which does not show which of them belong together. Select as many on both sides, '
                         f'as in {example}.')
    matched: list[tuple[Feature, Feature]] = []
    for stride in (stride for stride in levels if stride in target_levels):
        if len(levels[stride]) != len(target_levels[stride]):
            example = _example(taps, levels[stride][-1], target_levels[stride][-1])
            raise ValueError(f'{given}: of stride {stride:g}, as many are needed on both sides. Name those that are '
                             f'meant, as in {example}.')
        matched += zip(levels[stride], target_levels[stride])
    if not matched:
        raise ValueError(f'{given}, and none agree. To match features of other strides, name them, as in {example}.')
    matched.sort(key=lambda pair: pair[0].position)
    used = {feature for pair in matched for feature in pair}
    left = [str(feature) for feature in (*own, *targets) if feature not in used]
    if left:
        print_log(f'{given}; left out, as only one side has them or their stride is unknown: {", ".join(left)}.',
                  logger='current', level=logging.WARNING)
    return matched


def _levels(features: Sequence[Feature]) -> dict[float, list[Feature]]:
    """The features by stride; a head gives several of each."""
    levels: dict[float, list[Feature]] = {}
    for feature in features:
        if feature.layout.stride is not None:
            levels.setdefault(feature.layout.stride, []).append(feature)
    return levels


def _strides(features: Sequence[Feature]) -> str:
    strides = [feature.layout.stride for feature in features]
    return ', '.join('unknown' if stride is None else f'{stride:g}' for stride in strides)


def _check(pair: FeaturePair, student: Tensor, teacher: Tensor) -> None:
    """What features of one image cannot be compared, whatever the loss."""
    for feature in (student, teacher):
        if feature.shape[0] != 1:
            raise ValueError(f'a tap gives {feature.shape[0]} rows for one image, as RoI heads and window attention '
                             'do, and decoders that stack what their layers give; row by row, student and teacher '
                             'would be compared on different regions or queries.')
        if not feature.is_floating_point():
            raise ValueError(f'a tap gives {str(feature.dtype).removeprefix("torch.")} values of shape '
                             f'{tuple(feature.shape)}, which are no features; tap a place that gives real numbers.')
    if (student.dim() == 2) != (teacher.dim() == 2) and as_map(student).shape[-2:] != as_map(teacher).shape[-2:]:
        raise ValueError(f'one feature is a vector and the other a map: of one image, the student gives '
                         f'{tuple(student.shape)} and the teacher {tuple(teacher.shape)}. Tap both before the pooling, '
                         'or both after it.')
    same_size(as_map(student), as_map(teacher), pair.has_tokens(student, teacher))
