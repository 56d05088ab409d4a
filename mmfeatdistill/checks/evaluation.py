"""Scores of several networks on the same validation images."""
import copy
import io
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from itertools import cycle, islice
from typing import Any, NamedTuple, Optional

import torch
from mmengine.dist import get_dist_info
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from tqdm import tqdm

Predict = Callable[[dict], Sequence[Any]]
"""From a batch as the data loader gives it to data samples with predictions."""

_GROUPS = 10
"""Into which the images are divided: the scores of the groups tell how far a mean can be trusted."""

_HEADLINES = ('mIoU', 'mAP', 'top1')
"""What metrics that say most end with; mmseg's evaluator gives the accuracy of pixels first."""


class Scores(NamedTuple):
    """The scores of several networks, group of images by group of images.

    Attributes:
        metric (str): As mmengine logs it; the greater the better.
        images (int): Number of images.
        groups (dict[str, list[float]]): The score on each group, by network.
    """

    metric: str
    images: int
    groups: dict[str, list[float]]

    def mean(self, network: str) -> float:
        """The mean over the groups.

        Args:
            network (str): Which.

        Returns:
            float: In the unit of the metric.
        """
        return statistics.fmean(self.groups[network])


def clearly_better(scores: Sequence[float], others: Sequence[float]) -> bool:
    r"""Whether scores on some groups of images are better than others on the same groups, beyond chance.

    .. math:: \bar d > 3 \, \frac{\sigma_d}{\sqrt{K}} \quad\text{and}\quad \bar d > 0.02 \, \bar o

    with the differences :math:`d` on the K groups and the mean :math:`\bar o` of the others: more than three standard
    errors of the paired difference, and more than 2 % of the score.

    Args:
        scores (Sequence[float]): One for each group, at least two.
        others (Sequence[float]): One for each group.

    Returns:
        bool: Whether they are.

    Examples:
        >>> clearly_better([0.9, 0.8, 0.9], [0.1, 0.2, 0.1]), clearly_better([0.9, 0.1, 0.2], [0.1, 0.2, 0.1])
        (True, False)
    """
    differences = [score - other for score, other in zip(scores, others)]
    mean, error = statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(len(differences))
    return mean > max(3 * error, 0.02 * statistics.fmean(others))


class ValidationData:
    """Some of the images of a validation data set, and what judges predictions on them.

    In a distributed job each process runs a share of the images, and all learn the scores.

    Args:
        dataloader (dict): As a config's ``val_dataloader``.
        evaluator (dict | list): As a config's ``val_evaluator``.
        images (int): How many images are drawn, the same in every run; all if there are fewer.

    Attributes:
        classes (tuple[str, ...], optional): Of the data set, if it says them.
    """

    def __init__(self, dataloader: Mapping, evaluator: Any, images: int) -> None:
        dropped = ('prefetch_factor', 'num_batch_per_epoch')
        dataloader = {name: value for name, value in dataloader.items() if name not in dropped}
        with _quiet():
            loader = Runner.build_dataloader(dict(dataloader, num_workers=0, persistent_workers=False))
            self._evaluator = Evaluator(copy.deepcopy(evaluator))
        self._dataset, self._collate = loader.dataset, loader.collate_fn
        self._batch_size = dataloader.get('batch_size', 1)
        self._evaluator.dataset_meta = getattr(self._dataset, 'metainfo', None)
        self.classes = (self._evaluator.dataset_meta or {}).get('classes')
        # Data sets are often sorted by class.
        order = torch.randperm(len(self._dataset), generator=torch.Generator().manual_seed(0))
        self._images = order[:images].tolist()

    @torch.no_grad()
    def score(self, networks: Mapping[str, Predict], metric: Optional[str] = None) -> Scores:
        """Evaluates networks on the same images, which are read once.

        Args:
            networks (dict[str, Callable]): What predicts, by name.
            metric (str, optional): Which metric counts. Defaults to None: the headline of the evaluator.

        Returns:
            Scores: Without groups on which there is nothing to find.
        """
        results: dict[str, list[Mapping]] = {name: [] for name in networks}
        rank, world = get_dist_info()
        with tqdm(desc='teacher check', total=len(self._images), unit='image', disable=rank != 0) as bar:
            for group in (self._images[start::_GROUPS] for start in range(min(_GROUPS, len(self._images)))):
                evaluators = {name: self._evaluator_of(group) for name in networks}
                # Of equal length in all processes: the evaluator drops what is too much.
                share = list(islice(cycle(group), -(-len(group) // world) * world))[rank::world]
                for start in range(0, len(share), self._batch_size):
                    batch = self._collate([self._dataset[i] for i in share[start:start + self._batch_size]])
                    for name, predict in networks.items():
                        copied = dict(batch, data_samples=copy.deepcopy(batch.get('data_samples')))
                        evaluators[name].process(predict(copied), batch)
                with _quiet():
                    for name, evaluator in evaluators.items():
                        results[name].append(evaluator.evaluate(len(group)))
                bar.update(len(group))
        return self._scores(results, metric)

    def _evaluator_of(self, group: Sequence[int]) -> Evaluator:
        """An evaluator for these images, which shares the annotations with those for others."""
        metrics = [copy.copy(metric) for metric in self._evaluator.metrics]
        for metric in metrics:
            metric.results = []
            # COCO's and LVIS' count every image of the annotation file otherwise, seen or not.
            if getattr(metric, 'img_ids', ()) is None:
                metric.img_ids = [self._dataset.get_data_info(i)['img_id'] for i in group]
        evaluator = Evaluator(metrics)
        evaluator.dataset_meta = self._evaluator.dataset_meta
        return evaluator

    def _scores(self, results: Mapping[str, Sequence[Mapping]], metric: Optional[str]) -> Scores:
        known = list(dict.fromkeys(key for groups in results.values() for values in groups for key in values))
        if metric is None or metric not in known:
            metric = next((key for ending in _HEADLINES for key in known if key.endswith(ending)), [*known, 'none'][0])
        # A detector that finds nothing has no metrics at all.
        table = [[float(values.get(metric, 0)) for values in row] for row in zip(*results.values())]
        # COCO's are -1 where there is nothing to find.
        table = [[0.0 if math.isnan(value) else value for value in row] for row in table if min(row) >= 0]
        return Scores(metric, len(self._images),
                      {name: [row[index] for row in table] for index, name in enumerate(results)})


@contextmanager
def _quiet() -> Iterator[None]:
    """Neither tables of metrics nor what pycocotools prints."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('ERROR')
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
