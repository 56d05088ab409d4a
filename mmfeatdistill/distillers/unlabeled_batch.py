"""Batches of images without labels, as a student's data preprocessor takes and leaves them."""
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import nn

from mmfeatdistill.taps.dummy_batch import library_of

_IGNORED = 255
"""The class of a pixel that counts for nothing."""


def take_unlabeled(student: nn.Module) -> None:
    """Lets the data preprocessor of a student take training batches of any MM dataset, with labels or without.

    In the way in, each image has a data sample of the student's library with no objects, no classes or one class that
    means nothing: what a preprocessor does to labels as well, such as padding masks or mixing images, it then does with
    these. On the way out nothing is left of it, nor of labels that the data have, but what is known of each image.
    Outside of training, nothing is changed. Hooks do it, as DDP calls the preprocessor directly.

    Args:
        student (nn.Module): With a ``data_preprocessor``.
    """
    library = library_of(student)
    if library is not None:
        student.data_preprocessor.register_forward_pre_hook(_Blank(library), with_kwargs=True)
    student.data_preprocessor.register_forward_hook(_strip, with_kwargs=True)


class _Blank:
    """Puts data samples without labels in the place of those of a training batch."""

    def __init__(self, library: str) -> None:
        self.library = library

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        batch = args[0] if args else kwargs.get('data')
        if not _is_training(args, kwargs) or not isinstance(batch, Mapping) or 'inputs' not in batch:
            return args, kwargs
        images = batch['inputs']
        known = batch.get('data_samples') or [None] * len(images)
        samples = [_BLANK[self.library](image.shape[-2], image.shape[-1], _known(sample))
                   for image, sample in zip(images, known)]
        batch = dict(batch, data_samples=samples)
        return ((batch, *args[1:]), kwargs) if args else (args, dict(kwargs, data=batch))


def _strip(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
    if not _is_training(args, kwargs) or not isinstance(output, Mapping):
        return output
    samples = output.get('data_samples')
    if not isinstance(samples, Sequence):
        return output
    return dict(output, data_samples=[BaseDataElement(metainfo=_known(sample)) for sample in samples])


def _is_training(args: tuple, kwargs: dict) -> bool:
    return bool(args[1] if len(args) > 1 else kwargs.get('training', False))


def _known(sample: Any) -> dict[str, Any]:
    """What a data sample tells of its image: sizes, scales, a path."""
    return dict(sample.metainfo) if isinstance(sample, BaseDataElement) else {}


def _sizes(height: int, width: int, known: Mapping[str, Any]) -> dict[str, Any]:
    return dict(dict(img_shape=(height, width), ori_shape=(height, width)), **known)


def _image(height: int, width: int, known: Mapping[str, Any]) -> BaseDataElement:
    from mmpretrain.structures import DataSample
    return DataSample(metainfo=_sizes(height, width, known)).set_gt_label(0)


def _objects(height: int, width: int, known: Mapping[str, Any]) -> BaseDataElement:
    from mmdet.structures import DetDataSample
    sample = DetDataSample(metainfo=_sizes(height, width, known))
    sample.gt_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    return sample


def _label_map(height: int, width: int, known: Mapping[str, Any]) -> BaseDataElement:
    from mmseg.structures import SegDataSample
    classes = torch.full((1, height, width), _IGNORED, dtype=torch.long)
    return SegDataSample(metainfo=_sizes(height, width, known), gt_sem_seg=PixelData(data=classes))


_BLANK: Mapping[str, Callable[[int, int, Mapping[str, Any]], BaseDataElement]] = dict(
    mmpretrain=_image, mmdet=_objects, mmseg=_label_map)
