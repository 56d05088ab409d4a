"""Batches of random images, for timing trainings whose data are not at hand."""
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.taps.dummy_batch import LIBRARIES, labeled_sample

_DEFAULTS: Mapping[Any, Mapping[str, Any]] = {'LoadPanopticAnnotations': dict(with_mask=True, with_seg=True)}
"""Options that are on by default."""


def random_batch(cfg: Config, count: int, height: int, width: int) -> dict[str, Any]:
    """A batch as the data loader of a training would give it, before the data preprocessor.

    Args:
        cfg (Config): Of the training; its ``default_scope`` tells which library reads the batch, and the pipeline of
            its ``train_dataloader`` what detectors get in addition to boxes.
        count (int): Images.
        height (int): Of each image, in pixels.
        width (int): Of each image, in pixels.

    Returns:
        dict: ``inputs``, images of shape (3, H, W) and type uint8, and ``data_samples``, with labels of class 0 for
        classifiers, 8 boxes an image for detectors, with masks and a label map of class 0 where the pipeline loads
        them, and label maps of class 0 for segmenters.

    Raises:
        ConfigError: The config is of another library.

    Examples:
        >>> batch = random_batch(Config(dict(default_scope='mmseg')), count=2, height=32, width=64)
        >>> tuple(batch['inputs'][0].shape), tuple(batch['data_samples'][0].gt_sem_seg.shape)
        ((3, 32, 64), (32, 64))
    """
    library = cfg.get('default_scope')
    if library not in LIBRARIES:
        raise ConfigError(f'default_scope: random images can be labeled for {", ".join(LIBRARIES)}; got {library!r}.')
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator) for _ in range(count)]
    loads = _loaded(cfg.get('train_dataloader'))
    return dict(inputs=images, data_samples=[
        labeled_sample(library, height, width, generator, 'with_mask' in loads, 'with_seg' in loads) for _ in images])


def _loaded(pipeline: Any) -> set[str]:
    """The options, as ``with_mask``, that are on in any step of a pipeline, however deep it lies in other datasets."""
    if isinstance(pipeline, Mapping):
        options = {**_DEFAULTS.get(pipeline.get('type'), {}), **pipeline}
        return {name for name, value in options.items() if value is True} | _loaded([*pipeline.values()])
    if isinstance(pipeline, (list, tuple)):
        return {name for step in pipeline for name in _loaded(step)}
    return set()
