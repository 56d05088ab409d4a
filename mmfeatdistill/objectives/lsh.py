"""Mimicking features by locality-sensitive hashing: on which side of random hyperplanes the teacher's feature lies."""
import logging
import math
from collections.abc import Sequence
from typing import Literal, Optional, Union

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmfeatdistill.errors import config_key
from mmfeatdistill.losses import lsh
from mmfeatdistill.objectives.base import Objective, TapPair, Taps
from mmfeatdistill.objectives.finite_guard import FiniteGuard
from mmfeatdistill.objectives.hyperplanes import POSITIONS, Hyperplanes, Offsets
from mmfeatdistill.objectives.labels import single_labels
from mmfeatdistill.objectives.pairs import FeaturePair, build_connectors, match_features
from mmfeatdistill.objectives.statistics import NeedsStatistics
from mmfeatdistill.objectives.trial import try_losses
from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.feature_map import as_map, shape_of
from mmfeatdistill.taps.reader import TappedPass

Kind = Literal['bce', 'l1', 'l2']


@MODELS.register_module()
class LSH(NeedsStatistics, Objective):
    r"""Distilling Knowledge by Mimicking Features (arXiv 2011.01424).

    .. math:: L = \beta \, \Bigl( \frac{1}{NM} \sum_{n,m} \mathrm{bce}\bigl((W g(s_n) + b)_m, [(W t_n + b)_m > 0]\bigr)
        + \frac{1}{ND} \sum_{n,d} (g(s_n) - t_n)_d^2 \Bigr), \qquad W_{md} \sim \mathcal{N}(0, \sigma^2)

    of the penultimate features, with M frozen random hashes (see :func:`mmfeatdistill.losses.lsh`). A vector is one
    sample, and so is each position of a map, after the resize rule of :class:`FeatureMatch`. Logged as ``loss_0``,
    ``loss_1``, ... in the order of the teachers, and of the taps. Equal features do not make it 0: the first term is
    then the mean of :math:`\log(1 + e^{-|W t + b|})`; with ``kind='l1'`` or ``'l2'`` it is 0.

    Offsets :math:`b` at the median or mean need one pass of the teacher over the training images before the first
    iteration: ``dict(type='mmfeatdistill.StatisticsHook')`` in ``custom_hooks``. They are exact over all processes,
    and saved for resuming. The median is that of ``max_samples`` samples at most: a random subset of the images, and
    32 random positions of each map.

    Where the features differ in width, let the student end in one more linear layer, which stays a part of it: the
    paper's "2FC", as ``configs/digits/resnet18-w8-2fc_digits.py`` has it. A ``connector`` is dropped after training.

    A loss that is not finite ends the training with an error. On an accelerator it is looked at when it has arrived, so
    that no step waits for it: usually one step late.

    Args:
        taps (list): Tap pairs, such as ``['head.fc:in']`` (see :class:`FeatureMatch`).
        hashes (int, optional): M. Defaults to None: 2048, the authors' on ImageNet and for several labels; theirs on
            CIFAR-100 is 32 times the width.
        kind (str): Distance of the projections: ``'bce'``, ``'l1'`` or ``'l2'``. Defaults to ``'bce'``.
        with_l2 (bool): Whether the second term is there. Defaults to True, the paper's best (LSHL2).
        bias (str): ``'median'``, ``'mean'`` or ``'zero'``, the authors' on ImageNet. Defaults to ``'median'``, theirs
            on CIFAR-100 and for several labels.
        std (float | str): :math:`\sigma`. Defaults to ``'classifier'``: that of the teacher's classifier's weights.
        classifier (str, optional): The teacher's classifier, such as ``'decode_head.conv_seg'``. Defaults to None: the
            module whose input the teacher's tap is.
        only_correct (bool): Whether only the images count that the teacher classifies rightly (the paper's "S"); the
            loss of a batch without any is 0. Defaults to False.
        loss_weight (float): Factor :math:`\beta`. Defaults to 5, the authors' on ImageNet; theirs on CIFAR-100 is 6.
        connector (dict, optional): Config of a connector :math:`g`. Defaults to ``Identity``.
        max_samples (int): Samples from which a median is found. Defaults to 100000.
        seed (int): Of the hashes, which are the same in all processes and runs. Defaults to 0.
        teacher (int, optional): Which of several teachers is mimicked. Defaults to None: all of them.

    Raises:
        TypeError: ``taps`` or ``teacher`` is of another type.
        ValueError: An option has a value that it cannot have.

    Examples:
        >>> from mmfeatdistill.taps.reader import TapReader
        >>> reader = TapReader(nn.Sequential(nn.Linear(2, 5)), ['0:in'], 'net')
        >>> def reading(feature):
        ...     return TappedPass({'0:in': [feature]}, reader, feature)
        >>> objective = LSH(taps=['0:in'], kind='l2', bias='zero', loss_weight=1)
        >>> objective.prepare(reading(torch.zeros(1, 2)), [reading(torch.zeros(1, 2))], key='model.objectives.lsh')
        >>> objective(reading(torch.ones(4, 2)), [reading(torch.ones(4, 2))])
        {'loss_0': tensor(0.)}
    """

    def __init__(self, taps: Taps, hashes: Optional[int] = None, kind: Kind = 'bce', with_l2: bool = True,
                 bias: Offsets = 'median', std: Union[float, str] = 'classifier', classifier: Optional[str] = None,
                 only_correct: bool = False, loss_weight: float = 5.0, connector: Optional[dict] = None,
                 max_samples: int = 100_000, seed: int = 0, teacher: Optional[int] = None) -> None:
        super().__init__(taps, teacher)
        if bias not in ('median', 'mean', 'zero'):
            raise ValueError(f"bias: expected 'median', 'mean' or 'zero', got {bias!r}.")
        if std != 'classifier' and not (isinstance(std, (int, float)) and 0 < std < math.inf):
            raise ValueError(f"std: expected 'classifier' or a positive number, got {std!r}.")
        for name, count in (('hashes', hashes), ('max_samples', max_samples)):
            if count is not None and (not isinstance(count, int) or count < 1):
                raise ValueError(f'{name}: expected a positive number, got {count!r}.')
        if not isinstance(seed, int) or not -2**63 <= seed < 2**63:
            raise ValueError(f'seed: expected an integer of at most 64 bits, got {seed!r}.')
        self.loss = _Hashed(kind, with_l2, loss_weight)
        self._hashes, self._bias, self._std, self._classifier = hashes, bias, std, classifier
        self._connector = connector
        self._max_samples, self._seed = max_samples, seed
        self._classifiers = [self._classifier_at(pair) for pair in self.taps] if only_correct else []
        self.needs_labels = only_correct

    @property
    def teacher_taps(self) -> list[str]:
        """What is matched, and the logits where they decide which images count."""
        return [*super().teacher_taps, *self._classifiers]

    def prepare(self, student: TappedPass, teachers: Sequence[TappedPass], key: str) -> None:
        """Builds the connectors and draws the hashes (see :class:`Objective`).

        Args:
            student (TappedPass): The student in the dry run, on one image.
            teachers (Sequence[TappedPass]): Each teacher that is read.
            key (str): Where this objective stands in the config.

        Raises:
            ConfigError: The features cannot be matched, no classifier tells ``std``, or the features are maps and only
                images count that are rightly classified.
        """
        self._key = key
        self._guard = FiniteGuard(key)
        self.pairs = match_features(self.taps, student, teachers, key)
        self.connectors = build_connectors(self._connector, self.pairs, student, teachers, key)
        try_losses(_check_width, self.connectors, self.pairs, student, teachers, key)
        generator = torch.Generator().manual_seed(self._seed)
        self.hashings = nn.ModuleList()
        for pair in self.pairs:
            teacher, shape = teachers[pair.teacher_index], shape_of(pair.target(teachers))
            with config_key(f'{key}.only_correct'):
                _check_images_count(self._classifiers, teacher, is_map=shape.height * shape.width > 1)
            with config_key(f'{key}.std'):
                std = float(self._std) if self._std != 'classifier' else self._std_at(teacher, pair.taps)
            hashes = self._hashes or self._default_hashes(shape.channels)
            self.hashings.append(Hyperplanes(std * torch.randn(hashes, shape.channels, generator=generator),
                                             self._bias))
        are_vectors = all(as_map(pair.target(teachers))[0, 0].numel() == 1 for pair in self.pairs)
        self._images = self._max_samples if are_vectors else -(-self._max_samples // POSITIONS)

    @property
    def images_wanted(self) -> float:
        """All for means, as ``max_samples`` says for medians, 0 once they are known."""
        if all(hashing.is_known for hashing in self.hashings):
            return 0
        return math.inf if self._bias == 'mean' else self._images

    def update_statistics(self, teachers: Sequence[TappedPass]) -> None:
        for hashing, pair in zip(self.hashings, self.pairs):
            hashing.update(as_map(pair.target(teachers)).flatten(2).transpose(1, 2))

    def finish_statistics(self) -> None:
        for hashing in self.hashings:
            hashing.finish()
        print_log(f'{self._key}: {sum(len(hashing.bias) for hashing in self.hashings)} hyperplanes placed at the '
                  f"{self._bias} of the teacher's features.", logger='current', level=logging.INFO)

    def forward(self, student: TappedPass, teachers: Sequence[TappedPass]) -> dict[str, Tensor]:
        """The losses of a batch (see :class:`Objective`).

        Args:
            student (TappedPass): The student's features.
            teachers (Sequence[TappedPass]): Those of each teacher that is read, without gradient.

        Returns:
            dict[str, Tensor]: ``loss_0``, ``loss_1``, ... in the order of the teachers, and of the taps.

        Raises:
            ConfigError: Offsets had to be found and were not.
            RuntimeError: A loss is not finite, or was not in a step before.
        """
        self.check_statistics(
            f"{self._key}.bias: {self._bias!r} is that of the teacher's features on training images, which were not "
            "looked at; add dict(type='mmfeatdistill.StatisticsHook') to custom_hooks, or set bias='zero'.")
        losses = {}
        for index, (pair, connector, hashing) in enumerate(zip(self.pairs, self.connectors, self.hashings)):
            connected, target = pair.connect(connector, *pair.of(student, teachers))
            losses[f'loss_{index}'] = self.loss(_rows(as_map(connected)), _rows(as_map(target)), weight=hashing.weight,
                                                bias=hashing.bias, sample_mask=self._mask(pair, teachers))
        self._guard.check(list(losses.values()))
        return losses

    def _mask(self, pair: FeaturePair, teachers: Sequence[TappedPass]) -> Optional[Tensor]:
        """Which images count in a loss; None for all."""
        if not self._classifiers:
            return None
        teacher = teachers[pair.teacher_index]
        logits = teacher[self._classifier_at(pair.taps)][0]
        with config_key(f'{self._key}.only_correct'):
            return logits.argmax(1) == single_labels(teacher.data_samples).to(logits.device)

    def _classifier_at(self, pair: TapPair) -> str:
        """The path of the teacher's classifier after a tap."""
        place = pair.teacher.place
        if self._classifier is None and not place.is_input:
            raise ValueError(f'{pair.teacher.text!r} is not the input of the teacher\'s classifier, so that has to be '
                             "named, as in classifier='head.fc' or classifier='decode_head.conv_seg'.")
        return self._classifier or place.path

    def _std_at(self, teacher: TappedPass, pair: TapPair) -> float:
        """The standard deviation of the weights of the teacher's classifier."""
        path = self._classifier_at(pair)
        try:
            return weight_std(teacher.model.get_submodule(path))
        except (AttributeError, ValueError) as error:
            raise ValueError(f"the teacher's {path!r} is no classifier with weights that vary; name it, as in "
                             "classifier='head.fc', or give a number, such as std=0.05.") from error

    def _default_hashes(self, width: int) -> int:
        return 2048


class _Hashed(nn.Module):
    """:func:`lsh` times ``loss_weight``."""

    def __init__(self, kind: Kind, with_l2: bool, loss_weight: float) -> None:
        super().__init__()
        if kind not in ('bce', 'l1', 'l2'):
            raise ValueError(f"kind: expected 'bce', 'l1' or 'l2', got {kind!r}.")
        self.kind, self.with_l2, self.loss_weight = kind, with_l2, loss_weight

    def forward(self, student: Tensor, teacher: Tensor, *, weight: Tensor, bias: Tensor,
                sample_mask: Optional[Tensor]) -> Tensor:
        return self.loss_weight * lsh(student, teacher, weight=weight, bias=bias, kind=self.kind,
                                      with_l2=self.with_l2, sample_mask=sample_mask)


def _rows(feature: Tensor) -> Tensor:
    """The positions of maps as vectors, shape (N * H * W, D)."""
    return feature.flatten(2).transpose(1, 2).flatten(0, 1)


def weight_std(classifier: nn.Module) -> float:
    """The standard deviation of the weights of a linear layer or convolution.

    Args:
        classifier (nn.Module): With a ``weight``.

    Returns:
        float: More than 0.

    Raises:
        ValueError: It has no weights that vary.
    """
    weight = getattr(classifier, 'weight', None)
    if not isinstance(weight, Tensor) or weight.dim() < 2 or not weight.std() > 0:
        raise ValueError(f'{type(classifier).__name__} has no weights that vary.')
    return float(weight.std())


def _check_width(connected: Tensor, target: Tensor) -> Tensor:
    """In the place of the loss in the dry run, when there are no hashes yet."""
    if connected.shape[1] != target.shape[1]:
        raise ValueError('hashing compares vectors of one width. Either let the student end in one more linear '
                         "layer of the teacher's width, which stays a part of it (the paper's 2FC), and tap what "
                         'follows, or match through a connector that is dropped after training.')
    return connected.new_zeros(())


def _check_images_count(classifiers: Sequence[str], teacher: TappedPass, is_map: bool) -> None:
    """Whether images can be told apart by their one label."""
    if classifiers and (is_map or any(teacher[path][0].dim() != 2 for path in classifiers)):
        raise ValueError('images count or do not, so a vector and one label for each are needed; the features or '
                         'the logits here are maps.')
