"""What makes a teacher cheaper without changing what it computes, found out on the first batches of a training."""
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Optional

import torch
from mmengine.dist import broadcast_object_list
from torch import Tensor

from mmfeatdistill.taps.reader import Features
from mmfeatdistill.teacher.packed_convolutions import can_pack

BATCHES = 4
"""Batches that are looked at before anything is chosen: weights are packed where all of them have one size."""

_SLOWER = 1.1
"""A measured ratio from which on the plain teacher stays: far from what noise makes of a pass that is not slower."""

_PASSES, _SECONDS = 3, 3.0
"""Timed passes of each kind, and how long one of them may take; it is shown fewer images where it would take longer."""


class AutomaticAcceleration:
    """The choice of ``acceleration='auto'``.

    It is a rule, so that trainings with the same seed choose the same: batch normalizations are fused, images and
    weights lie channels-last, and on a CPU the weights of convolutions are packed, where the first :data:`BATCHES`
    batches have one size. A trial on the last of these shows whether the features are what they were up to rounding,
    and how much time a pass takes. Where it is clearly slower, or they are not, the plain teacher stays.
    """

    def __init__(self) -> None:
        self._shapes: Optional[list[list[int]]] = None
        self._chosen: Optional[dict[str, Any]] = None

    def start(self, state: Optional[Mapping]) -> dict[str, Any]:
        """Begins to look at batches.

        Args:
            state (dict, optional): Of :meth:`state`, where a training is resumed.

        Returns:
            dict: The options that it had chosen, if it had.
        """
        self._shapes = [list(shape) for shape in (state or {}).get('shapes', ())]
        self._chosen = (state or {}).get('chosen')
        return dict(self._chosen or {})

    def state(self) -> Optional[dict[str, Any]]:
        """What a resumed training has to know, as plain data; None where it has not begun to look."""
        return None if self._shapes is None else dict(shapes=self._shapes, chosen=self._chosen)

    def look(self, images: Any) -> Optional[dict[str, Any]]:
        """Looks at a batch.

        Args:
            images (Tensor): Of the teacher, shape (N, C, H, W).

        Returns:
            dict: Options to try on this batch; None before enough were seen, and when something was chosen.
        """
        if self._shapes is None or self._chosen is not None or not isinstance(images, Tensor) or images.dim() != 4:
            return None
        self._shapes.append(list(images.shape))
        if len(self._shapes) < BATCHES:
            return None
        options: dict[str, Any] = dict(fuse_conv_bn=True, channels_last=True)
        is_one_size = len({tuple(shape[1:]) for shape in self._shapes}) == 1
        is_single = images.dtype == torch.float32 and not _is_autocast(images.device)
        if is_one_size and is_single and images.device.type == 'cpu' and can_pack():
            options['packed_for'] = self._shapes[0]
        return _of_first_process(options)

    def choose(self, options: Mapping[str, Any], trial: 'Trial') -> bool:
        """Decides, as the first process does.

        Args:
            options (dict): Those that were tried.
            trial (Trial): How it went here.

        Returns:
            bool: Whether they are taken.
        """
        self._chosen = _of_first_process(dict(options) if trial.is_good else {})
        return bool(self._chosen)


class Trial(NamedTuple):
    """How passes with options compare with passes of the plain teacher.

    Attributes:
        difference (float): Of the features, relative to the largest.
        ratio (float): Of the time that a pass takes.
        most (float): The difference that rounding explains.
        failure (str): Why there was none.
    """

    difference: float = 0.0
    ratio: float = 1.0
    most: float = 0.0
    failure: str = ''

    @property
    def is_good(self) -> bool:
        """Whether features are equal up to rounding and passes are not clearly slower."""
        return not self.failure and self.difference <= self.most and self.ratio <= _SLOWER

    def told(self, options: Mapping[str, Any], is_taken: bool) -> str:
        """A sentence for the log.

        Args:
            options (dict): Those that were tried.
            is_taken (bool): Whether they stay.

        Returns:
            str: It.

        Examples:
            >>> print(Trial(1e-6, 0.8, 1e-5).told(dict(fuse_conv_bn=True), True))
            dict(fuse_conv_bn=True) is taken: a pass of the teacher takes 0.80 times as long, features differ by 1e-06.
        """
        written = f'dict({", ".join(f"{name}={value!r}" for name, value in options.items())})'
        seen = self.failure or (f'a pass of the teacher takes {self.ratio:.2f} times as long, features differ by '
                                f'{self.difference:.0e}')
        return f'{written} is {"taken" if is_taken else "left out"}: {seen}.'


def most_difference(features: Features) -> float:
    """By how much features may differ for rounding, relative to the largest.

    Args:
        features (Features): Of the plain teacher, in the precision that it has now.

    Returns:
        float: 1e-5, or 1e-2 in half precision or with AMP.
    """
    is_full = all(tensor.dtype in (torch.float32, torch.float64) for tensors in features.values()
                  for tensor in tensors if tensor.is_floating_point())
    device = next((tensor.device for tensors in features.values() for tensor in tensors), torch.device('cpu'))
    return 1e-5 if is_full and not _is_autocast(device) else 1e-2


def _is_autocast(device: torch.device) -> bool:
    # A product tells: what asks for it takes a device in some versions of PyTorch and none in others.
    ones = torch.ones(1, 1, dtype=torch.float32, device=device)
    return (ones @ ones).dtype != torch.float32


def images_shown(seconds: float, count: int) -> int:
    """How many images of a batch a trial shows.

    Args:
        seconds (float): That the teacher needs for one image.
        count (int): Those of the batch.

    Returns:
        int: At least 1.

    Examples:
        >>> images_shown(0.01, 16), images_shown(1.0, 16), images_shown(8.0, 16)
        (16, 3, 1)
    """
    return max(1, min(count, int(_SECONDS / max(seconds, 1e-6))))


def timed(read: Callable[[], Features], is_cuda: bool, most: float = _PASSES * _SECONDS) -> tuple[Features, float]:
    """Times passes.

    Args:
        read: Makes one.
        is_cuda (bool): Whether it runs on a CUDA device, whose time it is; otherwise it is the processor's.
        most (float): Seconds after which no further pass begins.

    Returns:
        tuple[Features, float]: The features, and the seconds of the fastest of up to three passes.
    """
    clock = time.perf_counter if is_cuda else time.process_time
    begun = time.perf_counter()
    times: list[float] = []
    while not times or (len(times) < _PASSES and time.perf_counter() - begun + min(times) < most):
        started = clock()
        features = read()
        if is_cuda:
            torch.cuda.synchronize()
        times.append(clock() - started)
    return features, min(times)


def _of_first_process(value: Any) -> Any:
    values = [value]
    broadcast_object_list(values)
    return values[0]
