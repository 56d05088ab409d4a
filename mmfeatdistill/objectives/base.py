"""What every objective has: taps on both sides, teachers to read, a place in the schedule."""
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional, Union

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.model import BaseModule
from torch import Tensor

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.taps.reader import TappedPass
from mmfeatdistill.taps.tap import Tap

Taps = Union[str, Mapping, Sequence[Union[str, Mapping]]]
"""What a config may say of taps: one entry, or a list of them; see :meth:`TapPair.parse`."""


class TapPair(NamedTuple):
    """Two places that are matched."""

    student: Tap
    teacher: Tap

    @classmethod
    def parse(cls, entry: Any) -> 'TapPair':
        """Reads one entry of an objective's ``taps``.

        Args:
            entry (str | dict): A tap for both sides, or ``dict(student=..., teacher=...)``.

        Returns:
            TapPair: The two taps.

        Raises:
            TypeError: ``entry`` is neither.
            ValueError: A key of the dict is missing or unknown, or a tap does not follow the grammar.

        Examples:
            >>> TapPair.parse(dict(student='neck', teacher='neck[:4]')).teacher.text
            'neck[:4]'
        """
        if isinstance(entry, Mapping):
            entry = {name: tap for name, tap in entry.items() if name != '_scope_'}
            if set(entry) != {'student', 'teacher'}:
                raise ValueError("expected dict(student='...', teacher='...'), got the keys "
                                 f'{sorted(entry)}.')
            return cls(*(Tap.parse(entry[side]) for side in cls._fields))
        return cls(Tap.parse(entry), Tap.parse(entry))

    @property
    def names_items(self) -> bool:
        """Whether one of the taps says which items are meant, as ``'neck[1:4]'`` does."""
        return any(tap.items != slice(None) for tap in self)


def keep_in_graph(parameters: Iterable[Tensor]) -> Tensor:
    """A zero that keeps parameters in the graph of a loss: DDP waits for the gradient of every one.

    Args:
        parameters (Iterable[Tensor]): Those that a step does not use.

    Returns:
        Tensor: A scalar; without their graph where there is one process only.
    """
    # Sums of nothing: zero whatever the parameter is, and with a gradient of zeros.
    sums = [parameter.flatten()[:0].sum() for parameter in parameters] if get_world_size() > 1 else []
    return torch.stack(sums).sum() if sums else torch.zeros(())


def mean_over_processes(values: Tensor) -> Tensor:
    """What a sum is divided by, as the heads of mmdet divide: so that all processes make the mean of one large batch.

    Args:
        values (Tensor): Of this process, without gradient; every process has to come here in every step.

    Returns:
        Tensor: The means.

    Examples:
        >>> mean_over_processes(torch.tensor([2.0, 3.0]))  # one process
        tensor([2., 3.])
    """
    if get_world_size() > 1:
        values = values.clone()
        all_reduce(values, 'mean')
    return values


def only_teacher(teachers: Sequence[TappedPass], key: str) -> TappedPass:
    """The teacher of an objective that can have one only.

    Args:
        teachers (Sequence[TappedPass]): Those that it reads.
        key (str): Where the objective stands in the config.

    Returns:
        TappedPass: The one.

    Raises:
        ConfigError: There are several.
    """
    if len(teachers) != 1:
        raise ConfigError(f'{key}.teacher: there are {len(teachers)} teachers; name one by its position.')
    return teachers[0]


class Objective(BaseModule):
    """Base of all objectives.

    The distiller asks an objective which taps it reads, shows it the features of a dry run once, and
    from then on calls it with the features of each batch.

    Args:
        taps (list | str | dict): Tap pairs, or a single one; see :meth:`TapPair.parse`.
        teacher (int, optional): Which of several teachers is mimicked. Defaults to None: all of them.

    Attributes:
        loss (nn.Module): What compares two features, if it is one module; alignment metrics listen to it.
        weight (float): Factor of all losses of this objective, set by a schedule; at 0 the objective is
            off and is not run.
        factors (dict[str, float]): Factors of single losses by name, set by a schedule; 1 where there is none.
        balance (float): One more factor of all losses, by which a hook holds the share of this objective in a band.
        runs_teacher (bool): Whether it runs modules of the teacher itself, beyond reading taps.
        needs_labels (bool): Whether it looks at the labels of a batch, or at what a head draws by them.
        networks (str, optional): Which networks alone it is for, where it reads places that no config names.

    Raises:
        TypeError: ``taps`` is no list, or an entry of it is an invalid tap.
        ValueError: ``taps`` is empty, or a tap does not follow the grammar.
    """

    runs_teacher = False
    needs_labels = False
    networks: Optional[str] = None

    def __init__(self, taps: Taps, teacher: Optional[int] = None) -> None:
        super().__init__()
        if isinstance(taps, (str, Mapping)):
            taps = [taps]
        if not isinstance(taps, Sequence):
            raise TypeError(f"taps: expected a list such as ['neck'], got {taps!r}.")
        if not taps:
            raise ValueError("taps: is empty; an objective needs at least one, such as ['neck'].")
        if teacher is not None and not isinstance(teacher, int):
            raise TypeError(f'teacher: expected the position of a teacher (0, 1, ...), got {teacher!r}.')
        self.taps = [TapPair.parse(entry) for entry in taps]
        self.teacher = teacher
        self.weight = 1.0
        self.factors: dict[str, float] = {}
        self.balance = 1.0

    def factor_of(self, loss: str) -> float:
        """What a loss is multiplied by, beyond what the config weighs it with.

        Args:
            loss (str): Its name, ``'loss_0'``.

        Returns:
            float: The product of the factors that hooks set.
        """
        return self.weight * self.balance * self.factors.get(loss, 1.0)

    def teachers_read(self, count: int) -> list[int]:
        """Which teachers this objective reads.

        Args:
            count (int): How many there are.

        Returns:
            list[int]: Their positions.

        Raises:
            ValueError: There is no teacher at the wanted position.
        """
        if self.teacher is None:
            return list(range(count))
        if not 0 <= self.teacher < count:
            raise ValueError(f'teacher: there is no teacher {self.teacher}; there are {count}, '
                             f'counted from 0.')
        return [self.teacher]

    @property
    def student_taps(self) -> list[str]:
        """What is read of the student; an objective may add places that are not matched, such as proposals."""
        return [pair.student.text for pair in self.taps]

    @property
    def compared_taps(self) -> list[str]:
        """Those of the student's taps that are matched image by image, and so have to give the same in training."""
        return [pair.student.text for pair in self.taps]

    @property
    def teacher_taps(self) -> list[str]:
        """What is read of each teacher; an objective may add places that are not matched, such as logits."""
        return [pair.teacher.text for pair in self.taps]

    @abstractmethod
    def prepare(self, student: TappedPass, teachers: Sequence[TappedPass], key: str) -> None:
        """Builds what depends on widths and sizes, before the optimizer exists.

        Args:
            student (TappedPass): The student in the dry run, on one image.
            teachers (Sequence[TappedPass]): Each teacher that is read.
            key (str): Where this objective stands in the config.

        Raises:
            ConfigError: The features cannot be matched.
        """

    @abstractmethod
    def forward(self, student: TappedPass, teachers: Sequence[TappedPass]) -> dict[str, Tensor]:
        """Computes the losses of a batch.

        Args:
            student (TappedPass): The student's features, and the batch.
            teachers (Sequence[TappedPass]): Those of each teacher that is read, without gradient.

        Returns:
            dict[str, Tensor]: Scalars; those to be minimized have ``loss`` in their name.
        """
