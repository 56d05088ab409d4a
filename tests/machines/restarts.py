"""Trainings that are started again, and what shows that nothing was lost."""
from pathlib import Path

from tests.machines.hosts import Host, Job
from tests.machines.trainings import check_same, losses, start, write_config_by_iteration

LENGTH = 64
"""Iterations, of which every second leaves a checkpoint."""
PATIENCE = 1800
"""Seconds for what takes a minute on a machine that has nothing else to do."""
FORKED = '--run-path --start-method=fork'
"""Options of torchrun with which its processes need not import what it has imported."""


def start_two(host: Host, digits: Path, folder: Path, pause: float, **environment: str) -> Job:
    """A job of two processes of torchrun."""
    config = write_config_by_iteration(folder, pause, LENGTH)
    return start(host, digits, folder / 'output.log', config, folder, '--resume', processes=2, **environment)


class Diary:
    """What a process of a job has noted, whichever time it was started."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._file = folder / f'diary_{rank}'

    def times(self) -> list[list[tuple[int, str, int]]]:
        """Its number in the system, what happened, and in which iteration, for each time."""
        found: list[list[tuple[int, str, int]]] = []
        for line in self._file.read_text().splitlines() if self._file.exists() else []:
            _, pid, what, number = line.split()
            if what == 'built':
                found.append([])
            found[-1].append((int(pid), what, int(number)))
        return found

    def has(self, time: int, notes: int) -> bool:
        """Whether it has noted so much, the time that it was started for which this is the number."""
        return len(self.times()) > time and len(self.times()[time]) >= notes


def check_restarts(folder: Path, straight: Path, count: int) -> None:
    """Fails unless all is as if nothing had happened, and no more was trained again than what had not been saved.

    Args:
        folder: Of a training that was started again.
        straight: Of one to which nothing has happened.
        count: How often it was started again.
    """
    for rank in range(2):
        times = Diary(folder, rank).times()
        assert len(times) == count + 1
        reached = 0
        for notes in times:
            for _, what, number in notes:
                if what == 'start':
                    # The note of an iteration may be missing whose checkpoint is there.
                    assert number % 2 == 0 and -1 <= reached - number <= 2, 'from the last checkpoint'
                reached = number if what in ('start', 'iteration') else reached
        assert times[-1][-1][1:] == ('end', LENGTH)
    assert losses(folder) == losses(straight) and losses(folder).keys() == set(range(1, LENGTH + 1))
    assert all(len(values) == 1 for values in losses(folder).values())
    check_same(straight, folder, f'iter_{LENGTH}.pth')
