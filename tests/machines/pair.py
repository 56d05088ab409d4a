"""The work of tests/distributed, done by a process on each of two hosts: ``torchrun ... pair.py FOLDER``."""
import pickle
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from tests.distributed.pair import Work, do, results
from tests.machines.hosts import Host

PORT = 29_511


class PairOfHosts:
    """As :class:`tests.distributed.pair.Pair`, over a network.

    Args:
        work: By name, in this order.
        folder: For files; both hosts see it.
        hosts: Two.
    """

    def __init__(self, work: Mapping[str, Work], folder: Path, hosts: list[Host]) -> None:
        folder.mkdir()
        (folder / 'work.pkl').write_bytes(pickle.dumps(dict(work)))
        self._folder = folder
        self._jobs = [host.start(
            ['torchrun', '--nnodes=2', f'--node_rank={rank}', f'--master_addr={hosts[0].address}',
             f'--master_port={PORT}', '--nproc_per_node=1', __file__, folder], folder, folder / f'{host.name}.log',
            dict(GLOO_SOCKET_IFNAME='eth0')) for rank, host in enumerate(hosts)]

    def results(self, name: str) -> list[Any]:
        """What a piece of work gave, by rank; waits for it."""
        return results(self._folder, name, self._have_ended)

    def _have_ended(self) -> bool:
        for job in self._jobs:
            assert job.process.poll() in (None, 0), job.output[-3000:]
        time.sleep(0.1)
        return all(job.process.poll() == 0 for job in self._jobs)


if __name__ == '__main__':
    folder = Path(sys.argv[1])
    dist.init_process_group('gloo')
    do(dist.get_rank(), pickle.loads((folder / 'work.pkl').read_bytes()), folder)
