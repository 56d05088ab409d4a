"""Batches of random images, for timing trainings whose data are not at hand."""
from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from mmfeatdistill.errors import ConfigError

_OBJECTS = 8
"""Of each image for a detector; COCO has 7.3."""

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
    label = _LABELS.get(cfg.get('default_scope'))
    if label is None:
        raise ConfigError(f'default_scope: random images can be labeled for {", ".join(_LABELS)}; '
                         f'got {cfg.get("default_scope")!r}.')
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator) for _ in range(count)]
    loads = _loaded(cfg.get('train_dataloader'))
    return dict(inputs=images, data_samples=[label(loads, height, width, generator) for _ in images])


def _image_label(loads: set[str], height: int, width: int, generator: torch.Generator) -> Any:
    from mmpretrain.structures import DataSample
    return DataSample(metainfo=dict(img_shape=(height, width))).set_gt_label(0)


def _objects(loads: set[str], height: int, width: int, generator: torch.Generator) -> Any:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    corners = torch.rand(_OBJECTS, 2, generator=generator) * 0.6
    sides = 0.1 + torch.rand(_OBJECTS, 2, generator=generator) * 0.3
    boxes = torch.cat([corners, corners + sides], dim=1) * torch.tensor([width, height, width, height])
    sample = DetDataSample(metainfo=dict(img_id=0, img_shape=(height, width), ori_shape=(height, width),
                                         scale_factor=(1.0, 1.0)))
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(_OBJECTS, dtype=torch.long))
    sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=torch.zeros(0, dtype=torch.long))
    if 'with_mask' in loads:
        masks = torch.stack([_filled(box, height, width) for box in boxes])
        sample.gt_instances.masks = BitmapMasks(masks.numpy(), height, width)
    if 'with_seg' in loads:
        sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, height, width, dtype=torch.long))
    return sample


def _loaded(pipeline: Any) -> set[str]:
    """The options, as ``with_mask``, that are on in any step of a pipeline, however deep it lies in other datasets."""
    if isinstance(pipeline, Mapping):
        options = {**_DEFAULTS.get(pipeline.get('type'), {}), **pipeline}
        return {name for name, value in options.items() if value is True} | _loaded([*pipeline.values()])
    if isinstance(pipeline, (list, tuple)):
        return {name for step in pipeline for name in _loaded(step)}
    return set()


def _filled(box: Tensor, height: int, width: int) -> Tensor:
    left, top, right, bottom = box.int().tolist()
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def _label_map(loads: set[str], height: int, width: int, generator: torch.Generator) -> Any:
    from mmseg.structures import SegDataSample
    return SegDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width)),
                         gt_sem_seg=PixelData(data=torch.zeros(1, height, width, dtype=torch.long)))


_LABELS: Mapping[Any, Callable[[set[str], int, int, torch.Generator], Any]] = dict(
    mmpretrain=_image_label, mmdet=_objects, mmseg=_label_map)
