"""Mimicking features by locality-sensitive hashing: on which side of random hyperplanes the teacher's feature lies."""
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, Optional, Union

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, all_reduce
from mmengine.logging import print_log
from torch import Tensor, nn

from mmfeatdistill.errors import ConfigError, config_key
from mmfeatdistill.features import as_map, shape_of
from mmfeatdistill.losses import lsh, lsh_bias
from mmfeatdistill.objectives.base import TapPair
from mmfeatdistill.objectives.feature_match import FeatureMatch
from mmfeatdistill.objectives.labels import single_labels
from mmfeatdistill.objectives.roi import box_classifier, box_feature
from mmfeatdistill.reading import Reading
from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps import Tap

Kind = Literal['bce', 'l1', 'l2']
Offsets = Literal['median', 'mean', 'zero']

_POSITIONS = 32
"""Positions of each map that enter a median."""

_MAX_GATHERED = 2**24
"""Projections that are gathered from all processes at once: 64 MiB."""


@MODELS.register_module()
class LSH(FeatureMatch):
    r"""Distilling Knowledge by Mimicking Features (arXiv 2011.01424).

    .. math:: L = \beta \, \Bigl( \frac{1}{NM} \sum_{n,m} \mathrm{bce}\bigl((W g(s_n) + b)_m, [(W t_n + b)_m > 0]\bigr)
        + \frac{1}{ND} \sum_{n,d} (g(s_n) - t_n)_d^2 \Bigr), \qquad W_{md} \sim \mathcal{N}(0, \sigma^2)

    of the penultimate features, with M frozen random hashes (see :func:`mmfeatdistill.losses.lsh`). A vector is one
    sample, and so is each position of a map, after the resize rule of :class:`FeatureMatch`. Logged as ``loss_0``,
    ``loss_1``, ... in the order of the taps, and of the teachers. Equal features do not make it 0: the first term is
    then the mean of :math:`\log(1 + e^{-|W t + b|})`; with ``kind='l1'`` or ``'l2'`` it is 0.

    Offsets :math:`b` at the median or mean need one pass of the teacher over the training images before the first
    iteration: ``dict(type='mmfeatdistill.CalibrationHook')`` in ``custom_hooks``. They are exact over all processes,
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
        >>> from mmfeatdistill.taps import TapReader
        >>> def reading(feature):
        ...     return Reading({'0:in': [feature]}, TapReader(nn.Sequential(nn.Linear(2, 5)), ['0:in'], 'net'), feature)
        >>> objective = LSH(taps=['0:in'], kind='l2', bias='zero', loss_weight=1)
        >>> objective.prepare(reading(torch.zeros(1, 2)), [reading(torch.zeros(1, 2))], key='model.objectives.lsh')
        >>> objective(reading(torch.ones(4, 2)), [reading(torch.ones(4, 2))])
        {'loss_0': tensor(0.)}
    """

    def __init__(self, taps: Sequence[Union[str, Mapping]], hashes: Optional[int] = None, kind: Kind = 'bce',
                 with_l2: bool = True, bias: Offsets = 'median', std: Union[float, str] = 'classifier',
                 classifier: Optional[str] = None, only_correct: bool = False, loss_weight: float = 5.0,
                 connector: Optional[dict] = None, max_samples: int = 100_000, seed: int = 0,
                 teacher: Optional[int] = None) -> None:
        super().__init__(taps, dict(type=_Hashed, kind=kind, with_l2=with_l2, loss_weight=loss_weight), connector,
                         teacher)
        if bias not in ('median', 'mean', 'zero'):
            raise ValueError(f"bias: expected 'median', 'mean' or 'zero', got {bias!r}.")
        if std != 'classifier' and not (isinstance(std, (int, float)) and 0 < std < math.inf):
            raise ValueError(f"std: expected 'classifier' or a positive number, got {std!r}.")
        for name, count in (('hashes', hashes), ('max_samples', max_samples)):
            if count is not None and (not isinstance(count, int) or count < 1):
                raise ValueError(f'{name}: expected a positive number, got {count!r}.')
        self._hashes, self._bias, self._std, self._classifier = hashes, bias, std, classifier
        self._max_samples, self._seed = max_samples, seed
        self._classifiers = [self._classifier_at(pair) for pair in self.taps] if only_correct else []
        self._offsets_are_known = False

    @property
    def teacher_taps(self) -> list[str]:
        """What is matched, and the logits where they decide which images count."""
        return [*super().teacher_taps, *self._classifiers]

    def prepare(self, student: Reading, teachers: Sequence[Reading], key: str) -> None:
        """Builds the connectors and draws the hashes (see :class:`Objective`).

        Args:
            student (Reading): The student in the dry run, on one image.
            teachers (Sequence[Reading]): Each teacher that is read.
            key (str): Where this objective stands in the config.

        Raises:
            ConfigError: The features cannot be matched, no classifier tells ``std``, or the features are maps and only
                images count that are rightly classified.
        """
        super().prepare(student, teachers, key)
        self._key = key
        self._guard = _FiniteGuard(key)
        generator = torch.Generator().manual_seed(self._seed)
        self.hashings = nn.ModuleList()
        for teacher, pair, feature in self._targets(teachers):
            shape = shape_of(feature)
            with config_key(f'{key}.only_correct'):
                _check_images_count(self._classifiers, teacher, is_map=shape.height * shape.width > 1)
            with config_key(f'{key}.std'):
                std = float(self._std) if self._std != 'classifier' else self._std_at(teacher, pair)
            hashes = self._hashes or self._default_hashes(shape.channels)
            self.hashings.append(_Hashing(std * torch.randn(hashes, shape.channels, generator=generator),
                                          self._statistic(shape.channels)))
        self._images = self._max_samples if all(as_map(feature)[0, 0].numel() == 1 for *_, feature
                                                in self._targets(teachers)) else -(-self._max_samples // _POSITIONS)

    @property
    def images_wanted(self) -> float:
        """All for means, as ``max_samples`` says for medians, 0 once they are known (see :class:`Objective`)."""
        if all(hashing.is_placed for hashing in self.hashings):
            return 0
        return math.inf if self._bias == 'mean' else self._images

    def observe(self, teachers: Sequence[Reading]) -> None:
        """Adds a batch to the statistics of the teacher's features (see :class:`Objective`)."""
        for hashing, (_, _, feature) in zip(self.hashings, self._targets(teachers)):
            hashing.statistic.observe(as_map(feature).flatten(2).transpose(1, 2))

    def conclude(self) -> None:
        """Places the hyperplanes, alike in all processes (see :class:`Objective`)."""
        for hashing in self.hashings:
            hashing.place()
        print_log(f'{self._key}: {sum(len(hashing.bias) for hashing in self.hashings)} hyperplanes placed at the '
                  f"{self._bias} of the teacher's features.", logger='current', level=logging.INFO)

    def forward(self, student: Reading, teachers: Sequence[Reading]) -> dict[str, Tensor]:
        """The losses of a batch (see :class:`Objective`).

        Args:
            student (Reading): The student's features.
            teachers (Sequence[Reading]): Those of each teacher that is read, without gradient.

        Returns:
            dict[str, Tensor]: ``loss_0``, ``loss_1``, ... in the order of the taps, and of the teachers.

        Raises:
            ConfigError: Offsets had to be found and were not.
            RuntimeError: A loss is not finite, or was not in a step before.
        """
        self._check_placed()
        places = zip(self.connectors, self._pairs(student, teachers), self.hashings, self._masks(teachers))
        losses = {f'loss_{i}': self._match(connector, s, t, hashing, mask)
                  for i, (connector, (s, t), hashing, mask) in enumerate(places)}
        self._guard.check(list(losses.values()))
        return losses

    def _match(self, connector: nn.Module, student: Tensor, teacher: Tensor, hashing: Optional['_Hashing'] = None,
               mask: Optional[Tensor] = None) -> Tensor:
        """The loss of one pair of features; in the dry run, before there are hashes, whether they can be compared."""
        connected, target = self._connected(connector, student, teacher)
        if connected.shape[1] != target.shape[1]:
            raise ValueError('hashing compares vectors of one width. Either let the student end in one more linear '
                             "layer of the teacher's width, which stays a part of it (the paper's 2FC), and tap what "
                             'follows, or match through a connector that is dropped after training.')
        if hashing is None:
            return connected.new_zeros(())
        return self.loss(_rows(connected), _rows(target), weight=hashing.weight, bias=hashing.bias, sample_mask=mask)

    def _targets(self, teachers: Sequence[Reading]) -> Iterator[tuple[Reading, TapPair, Tensor]]:
        """The teachers' features in the order of the losses, with where they are from."""
        for teacher in teachers:
            for pair in self.taps:
                for feature in teacher[pair.teacher]:
                    yield teacher, pair, feature

    def _masks(self, teachers: Sequence[Reading]) -> Iterator[Optional[Tensor]]:
        """Which images count in each loss; None for all."""
        for teacher, pair, _ in self._targets(teachers):
            if not self._classifiers:
                yield None
                continue
            logits = teacher[self._classifier_at(pair)][0]
            with config_key(f'{self._key}.only_correct'):
                yield logits.argmax(1) == single_labels(teacher.data_samples).to(logits.device)

    def _classifier_at(self, pair: TapPair) -> str:
        """The path of the teacher's classifier behind a tap."""
        place = Tap.parse(pair.teacher).place
        if self._classifier is None and not place.is_input:
            raise ValueError(f'{pair.teacher!r} is not the input of the teacher\'s classifier, so that has to be '
                             "named, as in classifier='head.fc' or classifier='decode_head.conv_seg'.")
        return self._classifier or place.path

    def _std_at(self, teacher: Reading, pair: TapPair) -> float:
        """The standard deviation of the weights of the teacher's classifier."""
        path = self._classifier_at(pair)
        try:
            return _std_of(teacher.model.get_submodule(path))
        except (AttributeError, ValueError) as error:
            raise ValueError(f"the teacher's {path!r} is no classifier with weights that vary; name it, as in "
                             "classifier='head.fc', or give a number, such as std=0.05.") from error

    def _default_hashes(self, width: int) -> int:
        return 2048

    def _statistic(self, width: int) -> Union['_Mean', '_Median', None]:
        if self._bias == 'zero':
            return None
        return _Mean(width) if self._bias == 'mean' else _Median(width)

    def _check_placed(self) -> None:
        """Asked once, as the answer lies on the device."""
        if not self._offsets_are_known and self.images_wanted:
            raise ConfigError(f"{self._key}.bias: {self._bias!r} is that of the teacher's features on training images, "
                              "which were not looked at; add dict(type='mmfeatdistill.CalibrationHook') to "
                              "custom_hooks, or set bias='zero'.")
        self._offsets_are_known = True


@MODELS.register_module()
class LSHRoI(LSH):
    """:class:`LSH` of the box heads of two-stage detectors, on the proposals that the student samples.

    Matched is what ``roi_head.bbox_head.fc_cls`` reads: the last shared linear layer behind its ReLU. The student's is
    that of its own pass. The teacher's box head, of a cascade the first stage's, runs on the teacher's ``neck`` and the
    student's proposals up to there. Without proposals the loss is 0.

    The authors saw trainings of detectors with ``with_l2=False`` turn to NaN: clip the gradients.

    Args:
        hashes (int, optional): Number of hashes. Defaults to None: four times the width, as the authors.
        kind (str): See :class:`LSH`.
        with_l2 (bool): See :class:`LSH`.
        bias (str): ``'zero'``, as the authors; nothing else is possible. Defaults to ``'zero'``.
        std (float | str): See :class:`LSH`; the classifier is the teacher's ``fc_cls``.
        loss_weight (float): Defaults to 7, the authors'.
        connector (dict, optional): See :class:`LSH`.
        seed (int): See :class:`LSH`.
        teacher (int, optional): Which of several teachers is mimicked. Defaults to None: all of them.

    Raises:
        ValueError: ``bias`` is another, or as :class:`LSH` raises it.
    """

    def __init__(self, hashes: Optional[int] = None, kind: Kind = 'bce', with_l2: bool = True, bias: str = 'zero',
                 std: Union[float, str] = 'classifier', loss_weight: float = 7.0, connector: Optional[dict] = None,
                 seed: int = 0, teacher: Optional[int] = None) -> None:
        if bias != 'zero':
            raise ValueError(f"bias: {bias!r} is that of features on training images before the first iteration, when "
                             "there are no proposals of a trained student yet; only 'zero' is possible.")
        super().__init__([_BOX_FEATURE], hashes, kind, with_l2, 'zero', std, loss_weight=loss_weight,
                         connector=connector, seed=seed, teacher=teacher)

    @property
    def student_taps(self) -> list[str]:
        """The box feature, and the proposals."""
        return [_BOX_FEATURE, _EXTRACTED]

    @property
    def teacher_taps(self) -> list[str]:
        """The levels that the box head starts from."""
        return [_LEVELS]

    def prepare(self, student: Reading, teachers: Sequence[Reading], key: str) -> None:
        """See :class:`LSH`; of the proposals of the dry run only the widths count, and there may be none."""
        with config_key(key):
            on_proposals = self._on_proposals(student, teachers)
        super().prepare(_one_row(student), [_one_row(reading) for reading in on_proposals], key)

    def forward(self, student: Reading, teachers: Sequence[Reading]) -> dict[str, Tensor]:
        """The losses of a batch (see :class:`LSH`)."""
        return super().forward(student, self._on_proposals(student, teachers))

    @torch.no_grad()
    def _on_proposals(self, student: Reading, teachers: Sequence[Reading]) -> list[Reading]:
        """What the teachers make of the student's proposals."""
        rois = student[_EXTRACTED][-1]
        return [replace(teacher, features={_BOX_FEATURE: [box_feature(teacher.model, teacher[_LEVELS], rois)]})
                for teacher in teachers]

    def _std_at(self, teacher: Reading, pair: TapPair) -> float:
        return _std_of(box_classifier(teacher.model))

    def _default_hashes(self, width: int) -> int:
        return 4 * width


_BOX_FEATURE = 'roi_head.bbox_head.fc_cls:in'
_EXTRACTED = 'roi_head.bbox_roi_extractor:in'
_LEVELS = 'neck'


def _one_row(reading: Reading) -> Reading:
    feature = reading[_BOX_FEATURE][0]
    return replace(reading, features={_BOX_FEATURE: [feature.new_zeros(1, feature.shape[1])]})


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


class _Hashing(nn.Module):
    """The hyperplanes of one feature, and what is to place them."""

    weight: Tensor
    bias: Tensor
    is_placed: Tensor

    def __init__(self, weight: Tensor, statistic: Union['_Mean', '_Median', None]) -> None:
        super().__init__()
        self.register_buffer('weight', weight)
        self.register_buffer('bias', weight.new_zeros(len(weight)))
        self.register_buffer('is_placed', torch.tensor(statistic is None))
        self.statistic = statistic

    def place(self) -> None:
        assert self.statistic is not None, 'only what is to be placed is concluded'
        self.bias.copy_(self.statistic.offsets(self.weight))
        self.is_placed.fill_(True)
        self.statistic = None  # its samples are not needed any more


class _Mean:
    """The mean of features: that of their projections is its projection."""

    def __init__(self, width: int) -> None:
        self._sum_and_count = torch.zeros(width + 1, dtype=torch.float64)

    def observe(self, samples: Tensor) -> None:
        """Adds samples of shape (N, P, D)."""
        samples = samples.flatten(0, 1)
        self._sum_and_count[:-1] += samples.sum(0, dtype=torch.float64).cpu()
        self._sum_and_count[-1] += len(samples)

    def offsets(self, weight: Tensor) -> Tensor:
        all_reduce(self._sum_and_count)
        mean = self._sum_and_count[:-1] / self._sum_and_count[-1]
        return lsh_bias(F.linear(mean[None].to(weight.device), weight.double()), kind='mean')


class _Median:
    """The medians of the projections, from the features themselves, which are narrower."""

    def __init__(self, width: int) -> None:
        self._samples = [torch.empty(0, width)]
        self._generator = torch.Generator().manual_seed(0)

    def observe(self, samples: Tensor) -> None:
        """Keeps samples of shape (N, P, D), of each image some positions."""
        images, positions, _ = samples.shape
        chosen = torch.rand(images, positions, generator=self._generator).topk(min(positions, _POSITIONS)).indices
        self._samples.append(samples[torch.arange(images)[:, None], chosen].flatten(0, 1).float().cpu())

    def offsets(self, weight: Tensor) -> Tensor:
        samples = torch.cat(self._samples).to(weight.device)
        counts = [int(count) for count in all_gather(torch.tensor(len(samples), device=weight.device))]
        parts = weight.split(max(1, _MAX_GATHERED // max(sum(counts), 1)))
        return torch.cat([lsh_bias(_gather(F.linear(samples, part), counts), kind='median') for part in parts])


def _gather(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """The rows of all processes, of which each has another number."""
    padded = F.pad(rows, (0, 0, 0, max(counts) - len(rows)))
    return torch.cat([part[:count] for part, count in zip(all_gather(padded), counts)])


class _FiniteGuard:
    """Notices losses that are not finite, without letting a step wait for the device.

    What comes out of an accelerator is looked at when it has arrived. As long as it has not, nothing new is sent for:
    weights that are NaN stay so.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._on_its_way: Optional[tuple[Tensor, torch.cuda.Event]] = None

    def check(self, losses: Sequence[Tensor]) -> None:
        """Raises if these losses, or those looked at before, are not finite."""
        finite = torch.stack([loss.detach() for loss in losses]).isfinite().all()
        if not finite.is_cuda:
            self._raise_unless(finite)
            return
        if self._on_its_way is not None and self._on_its_way[1].query():
            arrived, self._on_its_way = self._on_its_way[0], None
            self._raise_unless(arrived)
        if self._on_its_way is None:
            event = torch.cuda.Event()
            self._on_its_way = finite.to('cpu', non_blocking=True), event
            event.record()

    def _raise_unless(self, finite: Tensor) -> None:
        if not finite:
            raise RuntimeError(
                f"{self._key}: the loss is not finite, so the student's features have become infinite or NaN. "
                'Detectors are known to do so under this loss. What helps: gradient clipping '
                '(optim_wrapper.clip_grad=dict(max_norm=10)), a lower learning rate, with_l2=True, and a warm-up '
                "(dict(type='mmfeatdistill.ObjectiveScheduleHook', objective=..., warmup=...) in custom_hooks).")


def _rows(feature: Tensor) -> Tensor:
    """The positions of maps as vectors, shape (N * H * W, D)."""
    return feature.flatten(2).transpose(1, 2).flatten(0, 1)


def _std_of(classifier: nn.Module) -> float:
    weight = getattr(classifier, 'weight', None)
    if not isinstance(weight, Tensor) or weight.dim() < 2 or not weight.std() > 0:
        raise ValueError(f'{type(classifier).__name__} has no weights that vary.')
    return float(weight.std())


def _check_images_count(classifiers: Sequence[str], teacher: Reading, is_map: bool) -> None:
    """Whether images can be told apart by their one label."""
    if classifiers and (is_map or any(teacher[path][0].dim() != 2 for path in classifiers)):
        raise ValueError('whole images count or do not, so a vector and one label for each are needed; the features or '
                         'the logits here are maps.')
