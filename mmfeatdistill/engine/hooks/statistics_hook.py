"""What teachers and objectives learn of the training data before the first iteration."""
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm

from mmfeatdistill.distillers import FeatureDistiller
from mmfeatdistill.engine.hooks._class_order import check_class_order
from mmfeatdistill.engine.hooks._index_stream import batch_size_of
from mmfeatdistill.engine.hooks._objectives import teachers_of, unwrap
from mmfeatdistill.engine.hooks._runner_options import check_runner_options
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.registry import HOOKS
from mmfeatdistill.taps.isolation import random_state_kept
from mmfeatdistill.teacher.teacher import follow_pipelines


@HOOKS.register_module()
class StatisticsHook(Hook):
    """Tells the teachers what the pipeline makes of pixels, and shows training images to objectives that ask for some.

    A student may normalize its images in the pipeline of ``train_dataloader``, which the model alone does not show (see
    :func:`mmfeatdistill.teacher.teacher.follow_pipelines`).

    An objective that rests on statistics (:class:`mmfeatdistill.objectives.statistics.NeedsStatistics`) says how many
    images it wants, sees the teachers' features of each batch, and concludes. Where none asks, nothing happens. What
    they found is saved with their buffers, so a resumed training does not repeat the pass.

    Each of the first images of a random order, the same in every run, is shown once, by one of the processes. They are
    augmented, batched (in that order) and normalized as in training, without batch augmentations such as Mixup. The
    training itself goes on as if there had been no pass: it draws the same batches and random numbers.
    """

    # Before ExactResumeHook, which ties the collate function of the training loader to that loader's workers.
    priority = 'HIGHEST'

    def before_train(self, runner: Any) -> None:
        """Makes the pass; weights are loaded, placed and wrapped by now.

        Raises:
            ConfigError: Images are wanted and the training dataset has none, or cannot be indexed.
        """
        model = unwrap(runner.model)
        if isinstance(model, FeatureDistiller):
            check_runner_options(runner.cfg, model)
            check_class_order(getattr(runner.train_dataloader.dataset, 'metainfo', None), model)
        follow_pipelines(teachers_of(model), runner.cfg)
        wanted = model.images_wanted() if hasattr(model, 'images_wanted') else {}
        if not wanted:
            return
        dataset = runner.train_dataloader.dataset
        _check(dataset, wanted)
        counts = {name: int(min(count, len(dataset))) for name, count in wanted.items()}
        started = time.monotonic()
        with random_state_kept(), runner.optim_wrapper.optim_context(runner.model):
            _show(runner, model, counts)
        model.finish_statistics(counts)
        shown = ', '.join(f'{count} to {name!r}' for name, count in counts.items())
        print_log(f'Statistics: showed training images, {shown}, in {time.monotonic() - started:.0f} s.',
                  logger='current')


def _show(runner: Any, model: nn.Module, counts: Mapping[str, int]) -> None:
    """Shows this process's share of the images to each objective, as many as it wants."""
    training = runner.train_dataloader
    rank, world = get_dist_info()
    order = torch.randperm(len(training.dataset), generator=torch.Generator().manual_seed(0))
    share = order[:max(counts.values())][rank::world].tolist()
    ends = {name: len(range(rank, count, world)) for name, count in counts.items()}
    bounds = _bounds(len(share), batch_size_of(training) or 1, ends.values())
    # Its own loader: neither the sampler nor the workers of the training loader move.
    loader = DataLoader(training.dataset, batch_sampler=[share[start:end] for start, end in pairwise(bounds)],
                        num_workers=training.num_workers, collate_fn=training.collate_fn,
                        worker_init_fn=training.worker_init_fn, generator=torch.Generator().manual_seed(0),
                        multiprocessing_context=training.multiprocessing_context)
    with _no_batch_augments(model.data_preprocessor), tqdm(
            desc='statistics', total=len(share), unit='image', disable=rank != 0) as bar:
        # The loader comes first: asked for more at its end, it lets its workers go.
        for batch, (start, end) in zip(loader, pairwise(bounds)):
            data = model.data_preprocessor(batch, True)
            wanting = [name for name in ends if ends[name] > start]
            model.update_statistics(data['inputs'], data.get('data_samples'), wanting)
            bar.update(end - start)


def _bounds(length: int, batch_size: int, ends: Collection[int]) -> list[int]:
    """Where batches begin and end; none reaches beyond what one of the objectives wants."""
    return sorted({*range(0, length, batch_size), *ends, length})


def _check(dataset: Any, wanted: Mapping[str, float]) -> None:
    key = f'custom_hooks.StatisticsHook: the objective {next(iter(wanted))!r} must see training images before the ' \
          'first iteration, but the training dataset'
    if isinstance(dataset, IterableDataset):
        raise ConfigError(f'{key} is a stream ({type(dataset).__name__}); a dataset with a length and an index is '
                          'needed, or an objective that needs no images.')
    if not len(dataset):
        raise ConfigError(f'{key} is empty; look at train_dataloader.dataset.')


@contextmanager
def _no_batch_augments(preprocessor: nn.Module) -> Iterator[None]:
    """The batch augmentations of a data preprocessor switched off, under the name they have in all libraries."""
    augments = getattr(preprocessor, 'batch_augments', None)
    try:
        if augments is not None:
            preprocessor.batch_augments = None
        yield
    finally:
        if augments is not None:
            preprocessor.batch_augments = augments
