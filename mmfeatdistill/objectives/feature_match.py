"""Matching features place by place."""
from collections.abc import Sequence
from typing import Optional

from torch import Tensor

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.objectives.base import Objective, Taps
from mmfeatdistill.objectives.pairs import build_connectors, match_features
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
        teacher (int, optional): Which of several teachers is mimicked. Defaults to None: all of them.

    Raises:
        TypeError: ``taps`` or ``teacher`` is of another type.
        ValueError: ``taps`` is empty or does not follow the grammar.

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

    def __init__(self, taps: Taps, loss: dict, connector: Optional[dict] = None, teacher: Optional[int] = None) -> None:
        super().__init__(taps, teacher)
        self._configs = dict(loss=loss, connector=connector)

    def prepare(self, student: TappedPass, teachers: Sequence[TappedPass], key: str) -> None:
        """Builds the loss, and a connector for each pair of features (see :class:`Objective`)."""
        self.loss = build(self._configs['loss'], f'{key}.loss')
        if isinstance(self.loss, Objective):
            raise ConfigError(f'{key}.loss.type: {type(self.loss).__name__} is an objective, which goes into '
                              "model.objectives; here a loss compares two features, as in dict(type='SquaredError').")
        self.pairs = match_features(self.taps, student, teachers, key)
        self.connectors = build_connectors(self._configs['connector'], self.pairs, student, teachers, key)
        try_losses(self.loss, self.connectors, self.pairs, student, teachers, key)

    def forward(self, student: TappedPass, teachers: Sequence[TappedPass]) -> dict[str, Tensor]:
        return {f'loss_{i}': self.loss(*pair.connect(connector, *pair.of(student, teachers)))
                for i, (connector, pair) in enumerate(zip(self.connectors, self.pairs))}
