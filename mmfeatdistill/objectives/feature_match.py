"""Matching features place by place."""
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Optional, Union

import torch
from torch import Tensor, nn

from mmfeatdistill.errors import ConfigError, config_key
from mmfeatdistill.objectives.base import Objective
from mmfeatdistill.registry import MODELS, build
from mmfeatdistill.taps.feature_map import as_map, same_size, shape_of
from mmfeatdistill.taps.reader import TappedPass


@MODELS.register_module()
class FeatureMatch(Objective):
    r"""Pulls each tapped student feature, after its connector, to the teacher's.

    .. math:: L_i = \ell\bigl(R(g_i(s_i)),\, t_i\bigr)

    with one connector :math:`g_i` per feature and teacher, the resize rule :math:`R` (the connected
    student map takes the teacher's size, bilinearly; see
    :func:`mmfeatdistill.taps.feature_map.same_size`), and one loss
    :math:`\ell`. Logged as ``loss_0``, ``loss_1``, ...: in the order of the taps, and of the teachers.

    Args:
        taps (list): Tap pairs, such as ``['neck']`` or ``[dict(student='neck', teacher='neck[1:]')]``.
        loss (dict): Config of a loss ``loss(student, teacher)``.
        connector (dict, optional): Config of a connector; widths are found. Defaults to ``Identity``.
        teacher (int, optional): Which of several teachers is mimicked. Defaults to None: all of them.

    Raises:
        TypeError: ``taps`` or ``teacher`` is of another type.
        ValueError: ``taps`` is empty or does not follow the grammar.

    Examples:
        >>> objective = FeatureMatch(taps=['neck'], loss=dict(type='SquaredError'))
        >>> objective.prepare({'neck': [torch.zeros(1, 8, 4, 4)]}, [{'neck': [torch.zeros(1, 8, 4, 4)]}],
        ...                   key='model.objectives.fpn')
        >>> objective({'neck': [torch.ones(2, 8, 4, 4)]}, [{'neck': [torch.zeros(2, 8, 4, 4)]}])
        {'loss_0': tensor(128.)}
    """

    def __init__(self, taps: Sequence[Union[str, Mapping]], loss: dict,
                 connector: Optional[dict] = None, teacher: Optional[int] = None) -> None:
        super().__init__(taps, teacher)
        self._configs = dict(loss=loss, connector=connector or dict(type='Identity'))

    def prepare(self, student: TappedPass, teachers: Sequence[TappedPass], key: str) -> None:
        """Builds the loss, and a connector for each pair of features (see :class:`Objective`)."""
        self.loss = build(self._configs['loss'], f'{key}.loss')
        if isinstance(self.loss, Objective):
            raise ConfigError(f'{key}.loss.type: {type(self.loss).__name__} is an objective, which goes into '
                              "model.objectives; here a loss compares two features, as in dict(type='SquaredError').")
        with config_key(f'{key}.taps'):
            pairs = list(self._pairs(student, teachers))
            for feature in (feature for pair in pairs for feature in pair):
                _check_one_per_image(feature)
                _check_floating(feature)
            for s, t in pairs:
                _check_kinds(s, t)
                same_size(as_map(s), as_map(t), _has_tokens(s, t))
            shapes = [(shape_of(s), shape_of(t)) for s, t in pairs]
        self.connectors = nn.ModuleList(
            build(self._configs['connector'], f'{key}.connector', student_shape=s, teacher_shape=t)
            for s, t in shapes)
        for connector, (student_feature, _) in zip(self.connectors, pairs):
            connector.to(student_feature.dtype)
        self._try(pairs, key)

    def forward(self, student: TappedPass, teachers: Sequence[TappedPass]) -> dict[str, Tensor]:
        """The losses of a batch (see :class:`Objective`)."""
        return {f'loss_{i}': self._match(connector, s, t) for i, (connector, (s, t)) in
                enumerate(zip(self.connectors, self._pairs(student, teachers)))}

    @torch.no_grad()
    def _try(self, pairs: Sequence[tuple[Tensor, Tensor]], key: str) -> None:
        """Compares the features of the dry run: what a loss cannot compare is found before training."""
        self.connectors.eval()
        for connector, (student, teacher) in zip(self.connectors, pairs):
            with _named(f'{key}.connector'):
                connected, target = connector(as_map(student)).shape[1], as_map(teacher).shape[1]
            hint = '' if connected == target or not self._compares(teacher, teacher) else (
                f' The connected student feature has {connected} channels and the teacher feature {target}; '
                "use connector=dict(type='Conv1x1').")
            with _named(f'{key}.{"connector" if hint else "loss"}', hint):
                loss = self._match(connector, student, teacher)
            _check_loss(loss, student, teacher, f'{key}.loss')
        self.connectors.train()

    def _compares(self, student: Tensor, teacher: Tensor) -> bool:
        """Whether the loss compares two such features."""
        try:
            self._match(nn.Identity(), student, teacher)
        except Exception:  # noqa: BLE001 - as below
            return False
        return True

    def _match(self, connector: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
        connected, target = self._connected(connector, student, teacher)
        if student.dim() == teacher.dim() == 2:
            # Compared as the vectors that they are: a loss that needs positions says so.
            connected, target = connected.flatten(1), target.flatten(1)
        return self.loss(connected, target)

    def _connected(self, connector: nn.Module, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """The student's feature after its connector and the teacher's, as maps of one size."""
        return same_size(connector(as_map(student)), as_map(teacher), _has_tokens(student, teacher))

    def _targets(self, teachers: Sequence[TappedPass]) -> Iterator[Tensor]:
        """The teachers' features in the order of the losses."""
        for features in teachers:
            for tap in self.taps:
                yield from features[tap.teacher]

    def _pairs(self, student: TappedPass, teachers: Sequence[TappedPass]) -> Iterator[tuple[Tensor, Tensor]]:
        for features in teachers:
            for tap in self.taps:
                yield from _same_number(tap, student[tap.student], features[tap.teacher])


def _same_number(tap: Any, student: list[Tensor], teacher: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    if len(student) != len(teacher):
        raise ValueError(f'the student\'s {tap.student!r} gives {len(student)} feature(s) and the teacher\'s '
                         f"{tap.teacher!r} gives {len(teacher)}; select as many on both sides, as in "
                         f"dict(student='{tap.student}[:{min(len(student), len(teacher))}]', ...).")
    return zip(student, teacher)


@contextmanager
def _named(key: str, hint: str = '') -> Iterator[None]:
    """Names the config key in whatever error a connector or loss causes: each library refuses in its own way."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        kind = '' if isinstance(error, (TypeError, ValueError)) else f'{type(error).__name__}: '
        raise ConfigError(f'{key}: {kind}{error}{hint}') from error


def _check_loss(loss: Any, student: Tensor, teacher: Tensor, key: str) -> None:
    """Whether a loss of the dry run is what can be minimized."""
    if not isinstance(loss, Tensor) or loss.dim():
        given = f'a tensor of shape {tuple(loss.shape)}' if isinstance(loss, Tensor) else f'{loss!r:.100}'
        raise ConfigError(f'{key}: expected a loss that gives one number, a tensor of shape (), got {given}.')
    if not loss.isfinite() and _is_moderate(student) and _is_moderate(teacher):
        raise ConfigError(f'{key}: the loss of one small image is {loss.item()}; look at the options of the loss.')


def _is_moderate(feature: Tensor) -> bool:
    """Whether no loss should overflow; parameters that were not initialized yet hold whatever was in memory."""
    return bool((feature.abs() < 1e6).all())  # false of NaN


def _has_tokens(*features: Tensor) -> bool:
    return any(feature.dim() == 3 for feature in features)


def _check_kinds(student: Tensor, teacher: Tensor) -> None:
    if (student.dim() == 2) != (teacher.dim() == 2) and as_map(student).shape[-2:] != as_map(teacher).shape[-2:]:
        raise ValueError(f'one feature is a vector and the other a map: of one image, the student gives '
                         f'{tuple(student.shape)} and the teacher {tuple(teacher.shape)}. Tap both before the pooling, '
                         'or both after it.')


def _check_floating(feature: Tensor) -> None:
    if not feature.is_floating_point():
        raise ValueError(f'a tap gives {str(feature.dtype).removeprefix("torch.")} values of shape '
                         f'{tuple(feature.shape)}, which are no features; tap a place that gives real numbers.')


def _check_one_per_image(feature: Tensor) -> None:
    if feature.shape[0] != 1:
        raise ValueError(f'a tap gives {feature.shape[0]} rows for one image, as RoI heads and window attention '
                         'do; row by row, student and teacher would be compared on different regions.')
