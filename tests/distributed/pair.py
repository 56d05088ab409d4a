"""Two real processes, joined by gloo, that do some work one after another and leave what they found in files."""
import os
import traceback
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.logging import MMLogger

Work = Callable[[int], Any]
"""Takes the rank. Pickled for the processes, so a function of a module, or a partial of one."""


class Pair:
    """Starts the two; meanwhile, the process of the tests does its own.

    Args:
        work: By name, in this order.
        folder: For files.
    """

    def __init__(self, work: Mapping[str, Work], folder: Path) -> None:
        self._folder = folder
        self._processes = mp.spawn(_do, args=(dict(work), folder), nprocs=2, join=False)

    def results(self, name: str) -> list[Any]:
        """What a piece of work gave, by rank; waits for it."""
        return results(self._folder, name, lambda: self._processes.join(timeout=0.1))  # raises if one has died

    def close(self) -> None:
        for process in self._processes.processes:
            process.kill()
            process.join()


def results(folder: Path, name: str, have_ended: Callable[[], bool]) -> list[Any]:
    """What two processes have left of a piece of work; waits for it.

    Args:
        folder: Of the files.
        name: Of the work.
        have_ended: Whether the processes have; takes its time, and raises if one has died.
    """
    files = [_file(folder, name, rank) for rank in range(2)]
    while not all(file.exists() for file in files):
        ended = have_ended()
        assert not ended or all(file.exists() for file in files), f'the two processes never came to {name}'
    saved = [torch.load(file, weights_only=False) for file in files]
    for rank, (_, error) in enumerate(saved):
        assert error is None, f'{name}, rank {rank}: {error}'
    return [found for found, _ in saved]


def _file(folder: Path, name: str, rank: int) -> Path:
    return folder / f'{name.replace("/", "_")}.rank{rank}.pth'


def _do(rank: int, work: dict[str, Work], folder: Path) -> None:
    os.environ['LOCAL_RANK'] = str(rank)
    dist.init_process_group('gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2,
                            timeout=timedelta(seconds=60))
    do(rank, work, folder)


def do(rank: int, work: Mapping[str, Work], folder: Path) -> None:
    """Does the work in one of the processes, which are joined already, and leaves the results."""
    torch.set_num_threads(1)
    MMLogger.get_instance('pair', log_level='ERROR')
    for name, function in work.items():
        found, error = None, None
        try:
            found = function(rank)
        except Exception:  # noqa: BLE001, of this work only: what comes after it is to be done
            error = traceback.format_exc()
        file = _file(folder, name, rank)
        torch.save((found, error), file.with_suffix('.part'))
        file.with_suffix('.part').rename(file)
    dist.destroy_process_group()
