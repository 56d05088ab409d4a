"""How much memory a piece of work takes at its peak."""
import gc
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def size_of(tensors: Iterable[Tensor]) -> int:
    """Memory that tensors hold.

    Args:
        tensors (Iterable[Tensor]): Some may be views of the same memory, which counts once.

    Returns:
        int: Bytes.

    Examples:
        >>> weight = torch.zeros(4, 8)
        >>> size_of([weight, weight[1:], torch.zeros(2)])
        136
    """
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def peak_of(run: Callable[[], None], device: str) -> int:
    """Memory that a run takes at its peak, above what is held before it.

    Args:
        run: What is measured, once.
        device (str): ``'cpu'`` or ``'cuda'``.

    Returns:
        int: Bytes. On the CPU of the tensors alone, without the scratch memory of its kernels.

    Examples:
        >>> peak_of(lambda: torch.ones(1024).neg().sum(), 'cpu')
        8192
    """
    gc.collect()
    if device != 'cpu':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    return _peak_of_allocations(profile)


def _peak_of_allocations(profile: Any) -> int:
    """The highest running sum of the allocations and releases that a profile has recorded."""
    held = peak = 0
    events = (event for event in profile.profiler.kineto_results.events() if event.name() == '[memory]')
    for event in sorted(events, key=lambda event: event.start_ns() if hasattr(event, 'start_ns') else event.start_us()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
