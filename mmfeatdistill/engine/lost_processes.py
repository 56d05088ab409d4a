"""Which processes of a distributed job are gone, when a collective operation has failed."""
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from threading import Thread
from time import monotonic, sleep
from typing import Optional

from mmengine import dist
from torch import distributed

_PATIENCE = 10.0
"""Seconds in which the others have to find that the operation has failed, which they do at about the same time."""
_COMMUNICATION = re.compile('gloo|nccl|connection (closed|reset|refused)|timed out waiting', re.IGNORECASE)


class LostProcessesError(RuntimeError):
    """A collective operation failed, and these processes do not answer."""


@contextmanager
def lost_processes_named() -> Iterator[None]:
    """Within it, an error of communication between processes says which of them are lost, and on which hosts.

    PyTorch's own errors tell of a time that was waited or of a socket. Every process that meets one notes so in the
    store by which the processes have found each other; those that do not are gone. Nothing is sent while all is well,
    but for the names of the hosts at the beginning. Without a distributed job it does nothing.

    Raises:
        LostProcessesError: In place of PyTorch's error, which is its cause.

    Examples:
        >>> with lost_processes_named():
        ...     print('trains')
        trains
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        yield
        return
    hosts: list[str] = dist.all_gather_object(socket.gethostname())
    try:
        yield
    except RuntimeError as error:
        # Others are none of the network: torchrun then ends the other processes, and reports this one.
        if not isinstance(error, distributed.DistError) and not _COMMUNICATION.search(str(error)):
            raise
        answers = _answering(len(hosts))
        raise LostProcessesError(f'{explain(hosts, distributed.get_rank(), answers)} ({_first_line(error)})') from error


def explain(hosts: Sequence[str], rank: int, answering: Optional[set[int]]) -> str:
    """Says in words which processes are lost.

    Args:
        hosts (Sequence[str]): The name of the host of each process.
        rank (int): Of this process.
        answering (set[int], optional): The processes that still answer; None where the store does not.

    Returns:
        str: A few sentences.

    Examples:
        >>> print(explain(['a', 'b'], 0, {0}).partition(':')[0])
        process 0 of 2 (on a) has lost process 1 (on b)
    """
    here = f'process {rank} of {len(hosts)} (on {hosts[rank]})'
    resume = 'Start the job again with --resume; it continues after the last checkpoint, with fewer hosts as well.'
    lost = sorted({0} if answering is None else set(range(len(hosts))) - answering)
    if not lost:
        return (f'{here}: the connection to another process broke, and all of them answer again. Was a network down, '
                f'or a process slower than env_cfg.dist_cfg.timeout? {resume}')
    named = ', '.join(f'process {number} (on {hosts[number]})' for number in lost[:8])
    others = f' and {len(lost) - 8} more' if len(lost) > 8 else ''
    why = ('over which the processes find each other' if answering is None else
           'killed, or its host or network is down' if len(lost) == 1 else 'killed, or their hosts or network are down')
    return f'{here} has lost {named}{others}: {why}. {resume}'


def _answering(count: int) -> Optional[set[int]]:
    """The processes that have met the failure too, or None if the store cannot be reached."""
    found: dict[int, None] = {}
    reached: list[bool] = []
    # A store whose host is gone does not say so for many minutes, so it is asked where it need not be waited for.
    asking = Thread(target=_ask, args=(count, found, reached), daemon=True)
    asking.start()
    asking.join(_PATIENCE + 5)
    return set(found) if reached else None


def _ask(count: int, found: dict[int, None], reached: list[bool]) -> None:
    try:
        store = distributed.distributed_c10d._get_default_store()
        store.set_timeout(timedelta(seconds=_PATIENCE))
        store.set(_key(distributed.get_rank()), 'failed')
        end = monotonic() + _PATIENCE
        while monotonic() < end and len(found) < count:
            for rank in set(range(count)) - found.keys():
                if store.check([_key(rank)]):
                    found[rank] = None
            reached.append(True)
            sleep(0.2)
    except RuntimeError:  # so the store says that it is gone
        reached.clear()


def _key(rank: int) -> str:
    return f'mmfeatdistill/failed/{rank}'


def _first_line(error: Exception) -> str:
    return f'{type(error).__name__}: {str(error).strip().splitlines()[0]}'
