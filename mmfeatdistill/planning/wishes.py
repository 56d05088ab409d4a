"""What a user asks for when a distillation is planned."""
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from mmfeatdistill.planning.own_data import OwnData

Say = Callable[[str, str], None]
"""Tells a decision: what it is about, and what was decided and why."""


@dataclass(frozen=True)
class Wishes:
    """The two networks, and what is decided already; what is None is decided by looking at them.

    Attributes:
        student (str): A config file, a stock config or the name of a zoo model.
        teacher (str): Likewise.
        checkpoint (str, optional): The teacher's weights: a path, a URL, ``'zoo'``, or ``'none'`` for random ones.
        method (str): Name of a method, or a file that declares one.
        taps (list, optional): As a config has them.
        weight (float, optional): Of every loss that is added.
        ratio (float, optional): Of an objective's loss over the student's own, by which its weight is found.
        iterations (int): Over how many the losses are measured.
        images (int): Validation images on which the teacher is checked; 0: not at all.
        data (OwnData, optional): In place of the student's own.
        out (str, optional): Where the config goes.
        cfg_options (dict, optional): Overrides of this training, which are not written.
        dry_run (bool): Whether nothing is trained afterwards, so that data and weights may be missing.
    """

    student: str
    teacher: str
    checkpoint: Optional[str] = None
    method: str = 'channel_mlp'
    taps: Optional[list[Any]] = None
    weight: Optional[float] = None
    ratio: Optional[float] = None
    iterations: int = 50
    images: int = 200
    data: Optional[OwnData] = None
    out: Optional[str] = None
    cfg_options: Optional[Mapping[str, Any]] = None
    dry_run: bool = False
