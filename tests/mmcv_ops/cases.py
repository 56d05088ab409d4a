"""What is compared with mmcv's compiled operators: each case runs through mmcv's public functions.

A case has a name, tensors that it starts from, and a function that gives tensors, and gradients of the inputs.
"""
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Case(NamedTuple):
    """One comparison."""

    name: str
    inputs: dict[str, Tensor]
    run: Callable[[dict[str, Tensor]], dict[str, Tensor]]


def with_gradients(function: Callable[[dict[str, Tensor]], Tensor], *names: str) -> Callable:
    """The value of a function, and the gradients of some of its inputs for a fixed gradient of the value."""
    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        leaves = {name: tensor.clone().requires_grad_() if name in names else tensor
                  for name, tensor in inputs.items()}
        value = function(leaves)
        weights = torch.linspace(-1, 1.5, value.numel(), dtype=value.dtype).view(value.shape)
        found = torch.autograd.grad(value, [leaves[name] for name in names], weights)
        return dict(value=value.detach(), **{f'grad_{name}': gradient for name, gradient in zip(names, found)})
    return run


def cases() -> Iterator[Case]:
    """All cases, with the same numbers in every version of torch."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=draw)

    yield from _rois(normal, uniform)
    yield from _convolutions(normal, uniform)
    yield from _suppression(uniform)
    yield from _rotated(normal, uniform)
    yield from _maps(normal, uniform)


def _rois(normal: Callable, uniform: Callable) -> Iterator[Case]:
    from mmcv.ops import RoIAlign, RoIAlignRotated
    features = normal(2, 3, 13, 17)
    corner = uniform(9, 2) * 60 - 10
    # Three of no size along some axis, and one far outside.
    size = torch.cat([uniform(5, 2) * 60, torch.tensor([[0., 0.], [0., 20.], [1e-3, 5.], [30., 30.]])])
    corner[8] = 500.
    index = torch.tensor([0., 1, 1, 0, 1, 0, 1, 0, 1])[:, None]
    rois = torch.cat([index, corner, corner + size], 1)
    rotated = torch.cat([index, corner + size / 2, size, uniform(9, 1) * 7 - 3.5], 1)
    for mode in ('avg', 'max'):
        for aligned in (True, False):
            for ratio in (0, 2):
                layer = RoIAlign((3, 5), 0.25, ratio, mode, aligned)
                # Of a region without points, compiled operators give the lowest number that they know.
                tensors = dict(features=features, rois=rois if mode == 'avg' else rois[[0, 1, 2, 3, 4, 8]])
                yield Case(f'roi_align_{mode}_{"" if aligned else "not_"}aligned_{ratio}', tensors,
                           with_gradients(lambda t, layer=layer: layer(t['features'], t['rois']), 'features'))
    for aligned, clockwise, ratio in [(True, False, 0), (False, True, 2), (True, True, 2), (False, False, 0)]:
        layer = RoIAlignRotated((3, 2), 0.25, ratio, aligned, clockwise)
        yield Case(f'roi_align_rotated_{aligned}_{clockwise}_{ratio}', dict(features=features, rois=rotated),
                   with_gradients(lambda t, layer=layer: layer(t['features'], t['rois']), 'features'))
    layer = RoIAlign(2, 1.)
    yield Case('roi_align_avg_no_rois', dict(features=features, rois=torch.zeros(0, 5)),
               with_gradients(lambda t: layer(t['features'], t['rois']), 'features'))


def _convolutions(normal: Callable, uniform: Callable) -> Iterator[Case]:
    from mmcv.ops import deform_conv2d, modulated_deform_conv2d
    for name, batch, size, kernel, out, geometry in [
            ('plain', 2, (9, 11), (3, 3), 6, (1, 1, 1, 1, 1)),
            ('strided', 2, (9, 10), (3, 3), 4, (2, 1, 1, 1, 2)),
            ('grouped', 1, (8, 7), (3, 1), 6, ((1, 2), (2, 0), (2, 1), 2, 2)),
            ('odd_batch', 3, (5, 6), (1, 1), 4, (1, 0, 1, 4, 4))]:
        stride, padding, dilation, groups, deform_groups = geometry
        features, weight, bias = normal(batch, 4, *size), normal(out, 4 // groups, *kernel), normal(out)
        shape = torch.nn.functional.conv2d(features, weight, None, stride, padding, dilation, groups).shape[2:]
        taps = deform_groups * kernel[0] * kernel[1]
        offset, mask = 2 * normal(batch, 2 * taps, *shape), uniform(batch, taps, *shape)
        tensors = dict(features=features, offset=offset, weight=weight)
        yield Case(f'deform_conv_{name}', tensors, with_gradients(
            lambda t, geometry=geometry: deform_conv2d(t['features'], t['offset'], t['weight'], *geometry), *tensors))
        tensors = dict(features=features, offset=offset, mask=mask, weight=weight, bias=bias)
        yield Case(f'modulated_deform_conv_{name}', tensors, with_gradients(
            lambda t, geometry=geometry: modulated_deform_conv2d(*t.values(), *geometry), *tensors))
        tensors = dict(features=features, offset=offset, mask=mask, weight=weight)
        yield Case(f'modulated_deform_conv_{name}_without_bias', tensors, with_gradients(
            lambda t, geometry=geometry: modulated_deform_conv2d(*t.values(), None, *geometry), *tensors))


def _suppression(uniform: Callable) -> Iterator[Case]:
    from mmcv.ops import batched_nms, bbox_overlaps, nms, nms_match, soft_nms
    corner = uniform(150, 2) * 40
    boxes = torch.cat([corner, corner + 3 + uniform(150, 2) * 20], 1)
    tensors = dict(boxes=boxes, scores=uniform(150))
    for offset in (0, 1):
        for threshold in (0.3, 0.7):
            yield Case(f'nms_{offset}_{threshold}', tensors, lambda t, *, a=(threshold, offset): _pair(
                nms(t['boxes'], t['scores'], *a)))
        for method in ('naive', 'linear', 'gaussian'):
            yield Case(f'soft_nms_{method}_{offset}', tensors, lambda t, *, m=method, o=offset: _pair(
                soft_nms(t['boxes'], t['scores'], 0.3, 0.5, 0.05, m, o)))
    yield Case('nms_limited', tensors, lambda t: _pair(nms(t['boxes'], t['scores'], 0.5, 0, 0.2, 11)))
    yield Case('nms_no_boxes', dict(boxes=torch.zeros(0, 4), scores=torch.zeros(0)),
               lambda t: _pair(nms(t['boxes'], t['scores'], 0.5)))
    yield Case('soft_nms_no_boxes', dict(boxes=torch.zeros(0, 4), scores=torch.zeros(0)),
               lambda t: _pair(soft_nms(t['boxes'], t['scores'], 0.5)))
    labels = torch.arange(150) % 3
    for split in (10000, 50):
        cfg = dict(type='nms', iou_threshold=0.4, split_thr=split)
        yield Case(f'batched_nms_{split}', dict(tensors, labels=labels), lambda t, *, cfg=cfg: _pair(
            batched_nms(t['boxes'], t['scores'], t['labels'], cfg)))

    def groups(t: dict[str, Tensor]) -> dict[str, Tensor]:
        found = nms_match(torch.cat([t['boxes'], t['scores'][:, None]], 1), 0.4)
        return dict(members=torch.cat(found), sizes=torch.tensor(list(map(len, found))))

    yield Case('nms_match', tensors, groups)
    pair = dict(boxes=boxes[:11], others=boxes[20:31])
    for mode in ('iou', 'iof'):
        for aligned in (False, True):
            for offset in (0, 1):
                yield Case(f'bbox_overlaps_{mode}_{aligned}_{offset}', pair, lambda t, *, a=(mode, aligned, offset):
                           dict(value=bbox_overlaps(t['boxes'], t['others'], *a)))


def _pair(found: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    return dict(detections=found[0], index=found[1])


def _rotated(normal: Callable, uniform: Callable) -> Iterator[Case]:
    from mmcv.ops import box_iou_quadri, box_iou_rotated, nms_quadri, nms_rotated

    from mmfeatdistill.mmcv_ops.rotated_boxes import box_corners
    boxes = torch.cat([uniform(60, 2) * 40, 2 + uniform(60, 2) * 20, uniform(60, 1) * 2 * math.pi], 1)
    # The same box, the same turned by a quarter, one within, one that shares an edge, one without a size. Not the same
    # turned by a half: of some, the compiled operator gives 0.59 in place of 1.
    special = boxes[:1].repeat(6, 1)
    special[1:3, 4] += math.pi / 2
    special[3, 2:4] *= 0.5
    special[4] = torch.tensor([10., 10., 4., 4., 0.])
    special[5, 2] = 0.
    others = torch.cat([boxes[20:35], special, torch.tensor([[14., 10., 4., 4., 0.], [12., 10., 4., 4., 0.]])])
    boxes = torch.cat([boxes[:19], special[4:]])
    pairs = min(len(boxes), len(others))
    scores = uniform(len(boxes))
    for mode in ('iou', 'iof'):
        for clockwise in (True, False):
            yield Case(f'box_iou_rotated_{mode}_{clockwise}', dict(boxes=boxes, others=others),
                       lambda t, *, m=mode, c=clockwise: dict(value=box_iou_rotated(
                           t['boxes'], t['others'], m, clockwise=c)))
        aligned = dict(boxes=boxes[:pairs], others=others[:pairs])
        yield Case(f'box_iou_rotated_{mode}_aligned', aligned, lambda t, *, m=mode: dict(
            value=box_iou_rotated(t['boxes'], t['others'], m, True)))
        # mmcv takes an inside corner of a quadrilateral for one as if it were a rectangle, so rectangles it is.
        quads = dict(boxes=box_corners(boxes).flatten(1), others=box_corners(others).flatten(1))
        yield Case(f'box_iou_quadri_{mode}', quads, lambda t, *, m=mode: dict(
            value=box_iou_quadri(t['boxes'], t['others'], m)))
    for threshold in (0.1, 0.5):
        yield Case(f'nms_rotated_{threshold}', dict(boxes=boxes, scores=scores), lambda t, *, a=threshold: _pair(
            nms_rotated(t['boxes'], t['scores'], a)))
        yield Case(f'nms_quadri_{threshold}', dict(boxes=box_corners(boxes).flatten(1), scores=scores),
                   lambda t, *, a=threshold: _pair(nms_quadri(t['boxes'], t['scores'], a)))


def _maps(normal: Callable, uniform: Callable) -> Iterator[Case]:
    from mmcv.ops import PSAMask, active_rotated_filter, rotated_feature_align
    for kind in ('collect', 'distribute'):
        layer = PSAMask(kind, (3, 5))
        yield Case(f'psa_mask_{kind}', dict(masks=normal(2, 15, 4, 6)),
                   with_gradients(lambda t, layer=layer: layer(t['masks']), 'masks'))
    indices = torch.stack([torch.randperm(18, generator=torch.Generator().manual_seed(turn)) + 1 for turn in range(4)])
    indices = indices.t().reshape(2, 3, 3, 4).int().contiguous()
    yield Case('active_rotated_filter', dict(weight=normal(3, 5, 2, 3, 3), indices=indices),
               with_gradients(lambda t: active_rotated_filter(t['weight'], t['indices']), 'weight'))
    boxes = torch.cat([uniform(2, 6, 7, 2) * 60 - 4, 4 + uniform(2, 6, 7, 2) * 30, uniform(2, 6, 7, 1) * 6], 3)
    for points in (1, 5):
        yield Case(f'rotated_feature_align_{points}', dict(features=normal(2, 3, 6, 7), boxes=boxes),
                   with_gradients(lambda t, *, p=points: rotated_feature_align(t['features'], t['boxes'], 0.125, p),
                                  'features'))
