"""Small batches of made-up images with the labels that a library's models train on."""
from collections.abc import Callable, Mapping
from typing import Any, Optional

import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor, nn

_OBJECTS = 8
"""Of each image for a detector; COCO has 7.3."""


def dummy_images(channels: int, height: int, width: int, like: Optional[Tensor] = None) -> Tensor:
    """One image of values from -1 to 1, different at every pixel.

    Args:
        channels (int): Of the image.
        height (int): In pixels.
        width (int): In pixels.
        like (Tensor, optional): Whose dtype and device it takes. Defaults to None: float32 on the CPU.

    Returns:
        Tensor: Shape (1, channels, height, width).
    """
    like = torch.empty(0) if like is None else like
    values = torch.linspace(-1, 1, channels * height * width, dtype=like.dtype, device=like.device)
    return values.view(1, channels, height, width)


def unlabeled_sample(height: int, width: int) -> BaseDataElement:
    """What detectors ask of an image when they predict.

    Args:
        height (int): Of the image, in pixels.
        width (int): Of the image, in pixels.

    Returns:
        BaseDataElement: With meta information only.
    """
    return BaseDataElement(metainfo=_meta(height, width))


def labeled_sample(library: str, height: int, width: int, generator: torch.Generator, with_mask: bool = True,
                   with_seg: bool = True) -> Any:
    """A data sample with random labels.

    Args:
        library (str): ``'mmdet'``, ``'mmseg'`` or ``'mmpretrain'``.
        height (int): Of the image, in pixels.
        width (int): Of the image, in pixels.
        generator (torch.Generator): Of the boxes.
        with_mask (bool): Whether objects have masks. Defaults to True.
        with_seg (bool): Whether images with objects have a map of classes too. Defaults to True.

    Returns:
        DetDataSample | SegDataSample | DataSample: Everything in it is of class 0.

    Raises:
        KeyError: Another library.

    Examples:
        >>> labeled_sample('mmpretrain', 32, 32, torch.Generator()).gt_label
        tensor([0])
    """
    return _LABELS[library](height, width, generator, with_mask, with_seg)


def library_of(model: nn.Module) -> Optional[str]:
    """The library whose data samples a model trains on.

    Args:
        model (nn.Module): An MM model, or one that inherits from one.

    Returns:
        str: One that :func:`labeled_sample` knows; None for all others.
    """
    libraries = (cls.__module__.partition('.')[0] for cls in type(model).__mro__)
    return next((library for library in libraries if library in _LABELS), None)


def has_masks(model: nn.Module) -> bool:
    """Whether a detector trains on masks; some heads of boxes take others where there are masks.

    Args:
        model (nn.Module): An MM model.

    Returns:
        bool: By what its parts are called.
    """
    return any('mask' in name or 'Mask' in type(module).__name__ for name, module in model.named_modules())


def _meta(height: int, width: int) -> dict[str, Any]:
    shape = (height, width)
    return dict(img_id=0, img_shape=shape, ori_shape=shape, pad_shape=shape, batch_input_shape=shape,
                scale_factor=(1.0, 1.0))


def _image_label(height: int, width: int, generator: torch.Generator, with_mask: bool, with_seg: bool) -> Any:
    from mmpretrain.structures import DataSample
    return DataSample(metainfo=_meta(height, width)).set_gt_label(0)


def _objects(height: int, width: int, generator: torch.Generator, with_mask: bool, with_seg: bool) -> Any:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    corners = torch.rand(_OBJECTS, 2, generator=generator) * 0.6
    sides = 0.1 + torch.rand(_OBJECTS, 2, generator=generator) * 0.3
    boxes = torch.cat([corners, corners + sides], dim=1) * torch.tensor([width, height, width, height])
    sample = DetDataSample(metainfo=_meta(height, width))
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(_OBJECTS, dtype=torch.long))
    sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=torch.zeros(0, dtype=torch.long))
    if with_mask:
        masks = torch.stack([_filled(box, height, width) for box in boxes])
        sample.gt_instances.masks = BitmapMasks(masks.numpy(), height, width)
    if with_seg:
        sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, height, width, dtype=torch.long))
    return sample


def _filled(box: Tensor, height: int, width: int) -> Tensor:
    left, top, right, bottom = box.int().tolist()
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def _label_map(height: int, width: int, generator: torch.Generator, with_mask: bool, with_seg: bool) -> Any:
    from mmseg.structures import SegDataSample
    return SegDataSample(metainfo=_meta(height, width),
                         gt_sem_seg=PixelData(data=torch.zeros(1, height, width, dtype=torch.long)))


_LABELS: Mapping[str, Callable[[int, int, torch.Generator, bool, bool], Any]] = dict(
    mmpretrain=_image_label, mmdet=_objects, mmseg=_label_map)
LIBRARIES = tuple(_LABELS)
"""Whose models can be given labels."""
