"""Matching features place by place."""
from collections.abc import Sequence
from typing import Optional

from torch import Tensor

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.objectives.base import Objective, Taps
from mmfeatdistill.objectives.class_scores import check_softmax
from mmfeatdistill.objectives.pairs import FeaturePair, build_connectors, match_features
from mmfeatdistill.objectives.position_weights import PositionWeight
from mmfeatdistill.objectives.standardization import Kind, Standardization, check_standardize
from mmfeatdistill.objectives.trial import try_losses
from mmfeatdistill.registry import MODELS, build
from mmfeatdistill.taps.reader import TappedPass


@MODELS.register_module()
class FeatureMatch(Objective):
    r"""Pulls each tapped student feature, after its connector, to the teacher's.

    .. math:: L_i = \ell\bigl(R(g_i(s_i)),\, t_i\bigr)

    with one connector :math:`g_i` per feature and teacher, the resize rule :math:`R` (the connected
    student map takes the teacher's size, bilinearly; see
    :func:`mmfeatdistill.taps.feature_map.same_size`), and one loss
    :math:`\ell`. Levels are paired by stride (see :func:`mmfeatdistill.objectives.pairs.match_features`). Logged as
    ``loss_0``, ``loss_1``, ...: in the order of the teachers, and of the taps.

    Args:
        taps (list | str | dict): Tap pairs, such as ``['neck']`` or ``[dict(student='neck', teacher='neck[1:]')]``.
        loss (dict): Config of a loss ``loss(student, teacher)``.
        connector (dict, optional): Config of a connector; widths are found. Defaults to ``Identity``.
        weight (dict, optional): How much each position counts, ``dict(type='TeacherScore')`` or
            ``dict(type='GroundTruth')`` (see :mod:`mmfeatdistill.objectives.position_weights`), for a loss that weighs
            positions, such as ``WeightedError``. Defaults to None: all alike.
        standardize (str, optional): Lets the student mimic :math:`(t - \mu) / \phi`, with the mean :math:`\mu` of each
            channel of the teacher's feature, and one scale for all of them, ``'isotropic'``, by which the mean variance
            is 1, or one for each, ``'channel'`` (see
            :func:`mmfeatdistill.objectives.standardization.mean_and_scale`). The first is PHI-S (arXiv 2410.01680)
            without its rotation, which changes no loss that is the same in all directions, as squared errors and
            cosines are. Both are found on training images before the first iteration, as
            ``dict(type='mmfeatdistill.StatisticsHook')`` in ``custom_hooks`` shows them, and saved for resuming.
            Defaults to None: the feature as it is.
        standardize_images (float): On how many training images. Defaults to 2048.
        teacher (int, optional): Which of several teachers is mimicked. Defaults to None: all of them.

    Raises:
        TypeError: ``taps`` or ``teacher`` is of another type.
        ValueError: ``taps`` is empty or does not follow the grammar, or an option has a value that it cannot have.

    Examples:
        >>> from mmfeatdistill.taps.reader import TapReader
        >>> reader = TapReader(torch.nn.Sequential(torch.nn.ReLU()), ['0'], 'net')
        >>> def tapped(feature):
        ...     return TappedPass({'0': [feature]}, reader, feature)
        >>> objective = FeatureMatch(taps='0', loss=dict(type='SquaredError'))
        >>> one = tapped(torch.zeros(1, 8, 4, 4))
        >>> objective.prepare(one, [one], key='model.objectives.fpn')
        >>> objective(tapped(torch.ones(2, 8, 4, 4)), [tapped(torch.zeros(2, 8, 4, 4))])
        {'loss_0': tensor(128.)}
    """

    def __init__(self, taps: Taps, loss: dict, connector: Optional[dict] = None, teacher: Optional[int] = None,
                 weight: Optional[dict] = None, standardize: Optional[Kind] = None,
                 standardize_images: float = 2048) -> None:
        super().__init__(taps, teacher)
        check_standardize(standardize, standardize_images)
        self._standardize, self._standardize_images = standardize, standardize_images
        self._configs = dict(loss=loss, connector=connector)
        # Built at once, as it says what is read of a teacher.
        self._position_weight = None if weight is None else _position_weight(weight)
        self.networks = getattr(self._position_weight, 'networks', None)
        self.needs_labels = getattr(self._position_weight, 'needs_labels', False)

    @property
    def teacher_taps(self) -> list[str]:
        """What is matched, and what tells how much each position counts."""
        return [*super().teacher_taps, *(self._position_weight.teacher_taps if self._position_weight else ())]

    def prepare(self, student: TappedPass, teachers: Sequence[TappedPass], key: str) -> None:
        """Builds the loss, and a connector for each pair of features (see :class:`Objective`)."""
        self.loss = build(self._configs['loss'], f'{key}.loss')
        if isinstance(self.loss, Objective):
            raise ConfigError(f'{key}.loss.type: {type(self.loss).__name__} is an objective, which goes into '
                              "model.objectives; here a loss compares two features, as in dict(type='SquaredError').")
        self.pairs = match_features(self.taps, student, teachers, key)
        if self._position_weight:
            self._check_weight(self._position_weight, student, teachers, key)
        self.connectors = build_connectors(self._configs['connector'], self.pairs, student, teachers, key)
        try_losses(self.loss, self.connectors, self.pairs, student, teachers, key)
        if getattr(self.loss, 'takes_softmax', False):
            check_softmax(type(self.loss).__name__, self.taps, student, teachers, f'{key}.taps')
        self.standardization: Optional[Standardization] = None
        if self._standardize is not None:
            self.standardization = Standardization(self._standardize, self._standardize_images, self.pairs, teachers,
                                                   f'{key}.standardize')
            self.standardization.check_loss(self.loss, teachers)

    def forward(self, student: TappedPass, teachers: Sequence[TappedPass]) -> dict[str, Tensor]:
        return {f'loss_{i}': self.loss(*pair.connect(connector, *self._features(i, student, teachers)),
                                       **self._weight_of(pair, student, teachers))
                for i, (connector, pair) in enumerate(zip(self.connectors, self.pairs))}

    def _features(self, index: int, student: TappedPass, teachers: Sequence[TappedPass]) -> tuple[Tensor, Tensor]:
        """The student's feature, and what it mimics."""
        own, target = self.pairs[index].of(student, teachers)
        return own, target if self.standardization is None else self.standardization(target, index)

    def _weight_of(self, pair: FeaturePair, student: TappedPass, teachers: Sequence[TappedPass]) -> dict[str, Tensor]:
        return {} if self._position_weight is None else dict(weight=self._position_weight.of(pair, student, teachers))

    def _check_weight(self, weight: PositionWeight, student: TappedPass, teachers: Sequence[TappedPass],
                      key: str) -> None:
        if not getattr(self.loss, 'takes_weight', False):
            raise ConfigError(f'{key}.loss.type: {type(self.loss).__name__} does not weigh positions, as {key}.weight '
                              "asks for; use dict(type='WeightedError').")
        for pair in self.pairs:
            if pair.target(teachers).dim() != 4:
                raise ConfigError(f"{key}.weight: the teacher's {pair.teacher.tap!r} gives "
                                  f'{tuple(pair.target(teachers).shape)}, which is no map whose positions could count '
                                  'differently; tap levels of the neck.')
            weight.check(pair, student, teachers, f'{key}.weight')


def _position_weight(cfg: dict) -> PositionWeight:
    try:
        weight = build(cfg, 'weight')
    except ConfigError as error:
        raise ValueError(str(error)) from error  # whoever builds the objective knows where it stands
    if not isinstance(weight, PositionWeight):
        raise ValueError(f'weight.type: {type(weight).__name__} tells no weights of positions; use '
                         "dict(type='TeacherScore') or dict(type='GroundTruth').")
    return weight
