"""Ending a training whose losses are not finite any more."""
from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor


class FiniteGuard:
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
