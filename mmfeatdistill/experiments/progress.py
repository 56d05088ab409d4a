"""One progress bar over many experiments."""
import os.path as osp
import statistics
import sys
from collections.abc import Iterable

from tqdm import tqdm

from mmfeatdistill.experiments.experiment import Experiment, Result
from mmfeatdistill.experiments.scheduler import with_needs


class ProgressBar:
    """Iterations done of all experiments that are not finished yet, and what is running.

    How long an experiment is shows when it starts; until then it counts as the mean of those that are known.

    Args:
        experiments (Iterable[Experiment]): What will be run, with what that needs.
    """

    def __init__(self, experiments: Iterable[Experiment]) -> None:
        self._left = {experiment for experiment in with_needs(experiments) if experiment.result() is None}
        self._done: dict[Experiment, int] = {}
        self._totals: dict[Experiment, int] = {}
        self._texts: dict[Experiment, str] = {}
        self._bar = tqdm(unit='it', mininterval=1 if sys.stderr.isatty() else 15, disable=not self._left,
                         bar_format='{percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} iterations, {elapsed} gone, '
                                    'about {remaining} left | {desc}')

    def progressed(self, experiment: Experiment, done: int, total: int, text: str) -> None:
        """Shows how far an experiment is.

        Args:
            experiment (Experiment): Which.
            done (int): Its iterations done.
            total (int): Of how many.
            text (str): What it is doing.
        """
        self._done[experiment] = done
        self._totals[experiment] = total
        self._texts[experiment] = f'{_name(experiment)} {text} {done}/{total}'
        self._bar.total = round(len(self._left) * statistics.mean(self._totals.values()))
        self._show_running()
        self._bar.update(sum(self._done.values()) - self._bar.n)

    def finished(self, experiment: Experiment, result: Result) -> None:
        """Shows that an experiment is finished.

        Args:
            experiment (Experiment): Which.
            result (Result): Its result.
        """
        self._texts.pop(experiment, None)
        self._show_running()
        if experiment in self._left:
            self.write(f'{_name(experiment)}: finished in {result.seconds:.0f} s')

    def write(self, line: str) -> None:
        """Prints a line above the bar.

        Args:
            line (str): The line.
        """
        self._bar.write(line)

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()

    def _show_running(self) -> None:
        self._bar.set_description_str('; '.join(self._texts.values()), refresh=False)


def _name(experiment: Experiment) -> str:
    """The last two folders of the work directory: the seed and the name."""
    return '/'.join(osp.normpath(experiment.work_dir).split(osp.sep)[-2:])
