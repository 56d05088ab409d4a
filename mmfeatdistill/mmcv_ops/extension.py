"""The functions of mmcv's compiled extension, by the names, and with the arguments, that mmcv calls them with.

Most are given tensors to fill. What they compute is in the other modules.
"""
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmfeatdistill.mmcv_ops import attention, convolutions, focal_loss, point_sets, roi, rotated_boxes
from mmfeatdistill.mmcv_ops import nms as suppression
from mmfeatdistill.mmcv_ops.deform_conv import Geometry, deform_conv, deform_conv_gradients
from mmfeatdistill.mmcv_ops.differentiation import at_least_single, gradients
from mmfeatdistill.mmcv_ops.operators import missing_operator
from mmfeatdistill.mmcv_ops.sampling import spread
from mmfeatdistill.version import __version__

TORCHVISION = 'torchvision'
PLAIN = 'plain PyTorch'
ANSWER = 'an answer for reports'


class StandIn(NamedTuple):
    """What stands in for an operator, and where it comes from."""

    function: Callable
    source: str


STAND_INS: dict[str, StandIn] = {}


def find(name: str) -> Callable:
    """The function of an operator; of one that nothing stands in for, a function that says so.

    Args:
        name (str): Such as ``'nms'``.

    Returns:
        Callable: It takes mmcv's arguments.

    Raises:
        AttributeError: The name cannot be one of an operator.

    Examples:
        >>> find('nms')(torch.tensor([[0., 0., 1., 1.]]), torch.ones(1), iou_threshold=0.5, offset=0)
        tensor([0])
    """
    if name.startswith('_'):
        raise AttributeError(f'mmcv has no operator {name!r}.')
    return STAND_INS[name].function if name in STAND_INS else missing_operator(name)


def _stands_in(source: str) -> Callable[[Callable], Callable]:
    def register(function: Callable) -> Callable:
        STAND_INS[function.__name__] = StandIn(function, source)
        return function
    return register


def _fill(outputs: list[Tensor], values: Any) -> None:
    for output, value in zip(outputs, values, strict=True):
        output.copy_(value)


@_stands_in(ANSWER)
def get_compiler_version() -> str:
    """For reports on the environment, which show it in place of a compiler."""
    return f'none, operators of mmfeatdistill {__version__}'


@_stands_in(ANSWER)
def get_compiling_cuda_version() -> str:
    """For reports on the environment."""
    return 'not available'


@_stands_in(TORCHVISION)
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """The indices that `nms.nms` keeps."""
    return suppression.nms(boxes, scores, iou_threshold, offset)


@_stands_in(PLAIN)
def softnms(boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float, min_score: float,
            method: int, offset: int) -> Tensor:
    """Fills the first of ``dets`` and returns their indices, by `nms.soft_nms`."""
    kept, order = suppression.soft_nms(boxes, scores, iou_threshold, sigma, min_score, method, offset)
    dets[:len(kept)] = kept
    return order


@_stands_in(PLAIN)
def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """The groups of `nms.nms_match`."""
    return suppression.nms_match(dets, iou_threshold)


@_stands_in(PLAIN)
def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Fills ``ious`` by `nms.box_iou`."""
    ious.copy_(suppression.box_iou(bboxes1, bboxes2, mode == 1, aligned, offset))


@_stands_in(PLAIN)
def box_iou_rotated(boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode_flag: int, aligned: bool) -> None:
    """Fills ``ious``, flat, by `rotated_boxes.pairwise`."""
    quads, others = (rotated_boxes.box_corners(boxes.double()) for boxes in (boxes1, boxes2))
    ious.copy_(rotated_boxes.pairwise(quads, others, aligned, mode_flag == 1).view_as(ious))


@_stands_in(PLAIN)
def box_iou_quadri(boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode_flag: int, aligned: bool) -> None:
    """Fills ``ious``, flat, by `rotated_boxes.pairwise`."""
    quads, others = (boxes.double().view(-1, 4, 2) for boxes in (boxes1, boxes2))
    ious.copy_(rotated_boxes.pairwise(quads, others, aligned, mode_flag == 1).view_as(ious))


@_stands_in(PLAIN)
def nms_rotated(dets: Tensor, scores: Tensor, order: Tensor, dets_sorted: Tensor, labels: Tensor,
                iou_threshold: float, multi_label: bool) -> Tensor:
    """The indices that `rotated_boxes.nms_of_quads` keeps; with ``multi_label``, a label stands after each box."""
    return rotated_boxes.nms_of_quads(dets_sorted[:, :5], order, dets_sorted[:, 5] if multi_label else None,
                                      iou_threshold, rotated_boxes.box_corners)


@_stands_in(PLAIN)
def nms_quadri(dets: Tensor, scores: Tensor, order: Tensor, dets_sorted: Tensor, iou_threshold: float,
               multi_label: bool) -> Tensor:
    """The same for quadrilaterals."""
    return rotated_boxes.nms_of_quads(dets_sorted[:, :8], order, dets_sorted[:, 8] if multi_label else None,
                                      iou_threshold, lambda shapes: shapes.view(-1, 4, 2))


@_stands_in(PLAIN)
def diff_iou_rotated_sort_vertices_forward(vertices: Tensor, mask: Tensor, num_valid: Tensor) -> Tensor:
    """The order of `rotated_boxes.sort_corners`."""
    return rotated_boxes.sort_corners(vertices, mask)


@_stands_in(TORCHVISION)
def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                      aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                      pool_mode: int, aligned: bool) -> None:
    """Fills ``output`` by `roi.roi_align`, or by `roi.roi_align_max`, then the positions too."""
    geometry = (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned
    if pool_mode == 0:
        _fill([output, argmax_y, argmax_x], roi.roi_align_max(input, rois, *geometry))
    else:
        output.copy_(roi.roi_align(input, rois, *geometry))


@_stands_in(TORCHVISION)
def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor,
                       aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                       pool_mode: int, aligned: bool) -> None:
    """Fills ``grad_input``."""
    if pool_mode == 0:
        grad, y, x = map(at_least_single, (grad_output, argmax_y, argmax_x))
        grad_input.copy_(spread(grad, rois[:, 0].long(), y, x, tuple(grad_input.shape)))
    else:
        grad_input.copy_(roi.roi_align_gradient(grad_output, rois, tuple(grad_input.shape), spatial_scale,
                                                sampling_ratio, aligned))


@_stands_in(PLAIN)
def roi_pool_forward(input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor, pooled_height: int,
                     pooled_width: int, spatial_scale: float) -> None:
    """Fills ``output`` and ``argmax`` by `roi.roi_pool`."""
    _fill([output, argmax], roi.roi_pool(input, rois, (pooled_height, pooled_width), spatial_scale))


@_stands_in(PLAIN)
def roi_pool_backward(grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor, pooled_height: int,
                      pooled_width: int, spatial_scale: float) -> None:
    """Fills ``grad_input``."""
    grad_input.copy_(roi.roi_pool_gradient(grad_output, rois, argmax, tuple(grad_input.shape)))


@_stands_in(PLAIN)
def roi_align_rotated_forward(input: Tensor, rois: Tensor, output: Tensor, pooled_height: int, pooled_width: int,
                              spatial_scale: float, sampling_ratio: int, aligned: bool, clockwise: bool) -> None:
    """Fills ``output`` by `roi.roi_align_rotated`."""
    output.copy_(roi.roi_align_rotated(input, rois, (pooled_height, pooled_width), spatial_scale, sampling_ratio,
                                       aligned, clockwise))


@_stands_in(PLAIN)
def roi_align_rotated_backward(grad_output: Tensor, rois: Tensor, grad_input: Tensor, pooled_height: int,
                               pooled_width: int, spatial_scale: float, sampling_ratio: int, aligned: bool,
                               clockwise: bool) -> None:
    """Fills ``grad_input``, which does not depend on the features."""
    def pooled(features: Tensor) -> Tensor:
        return roi.roi_align_rotated(features, rois, (pooled_height, pooled_width), spatial_scale, sampling_ratio,
                                     aligned, clockwise)

    _fill([grad_input], gradients(pooled, [torch.zeros_like(grad_input)], grad_output))


@_stands_in(PLAIN)
def deform_roi_pool_forward(input: Tensor, rois: Tensor, offset: Tensor, output: Tensor, pooled_height: int,
                            pooled_width: int, spatial_scale: float, sampling_ratio: int, gamma: float) -> None:
    """Fills ``output`` by `roi.deform_roi_pool`."""
    output.copy_(roi.deform_roi_pool(input, rois, offset, (pooled_height, pooled_width), spatial_scale,
                                     sampling_ratio, gamma))


@_stands_in(PLAIN)
def deform_roi_pool_backward(grad_output: Tensor, input: Tensor, rois: Tensor, offset: Tensor, grad_input: Tensor,
                             grad_offset: Tensor, pooled_height: int, pooled_width: int, spatial_scale: float,
                             sampling_ratio: int, gamma: float) -> None:
    """Fills the gradients."""
    def pooled(features: Tensor, moves: Tensor) -> Tensor:
        return roi.deform_roi_pool(features, rois, moves, (pooled_height, pooled_width), spatial_scale,
                                   sampling_ratio, gamma)

    _fill([grad_input, grad_offset], gradients(pooled, [input, offset], grad_output))


@_stands_in(PLAIN)
def border_align_forward(input: Tensor, boxes: Tensor, output: Tensor, argmax_idx: Tensor, pool_size: int) -> None:
    """Fills ``output`` and ``argmax_idx`` by `roi.border_align`."""
    _fill([output, argmax_idx], roi.border_align(input, boxes, pool_size))


@_stands_in(PLAIN)
def border_align_backward(grad_output: Tensor, boxes: Tensor, argmax_idx: Tensor, grad_input: Tensor,
                          pool_size: int) -> None:
    """Fills ``grad_input``."""
    grad = at_least_single(grad_output).permute(0, 3, 1, 2)  # (B, 4, C, K)
    chosen = argmax_idx.permute(0, 3, 1, 2).long()
    points = (part.transpose(1, 2)[:, :, None].expand(*chosen.shape, -1).gather(4, chosen[..., None])[..., 0]
              for part in roi.border_points(boxes.to(grad.dtype), pool_size))
    y, x = (part.flatten(1, 2) for part in points)
    images = torch.arange(len(grad), device=grad.device)
    grad_input.copy_(spread(grad.flatten(1, 2), images, y, x, tuple(grad_input.shape)))


@_stands_in(TORCHVISION)
def deform_conv_forward(input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor,
                        kW: int, kH: int, dW: int, dH: int, padW: int, padH: int, dilationW: int, dilationH: int,
                        group: int, deformable_group: int, im2col_step: int) -> None:
    """Fills ``output`` by `deform_conv.deform_conv`."""
    geometry = Geometry((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    output.copy_(deform_conv(input, weight, offset, None, None, geometry))


@_stands_in(TORCHVISION)
def deform_conv_backward_input(input: Tensor, offset: Tensor, gradOutput: Tensor, gradInput: Tensor,
                               gradOffset: Tensor, weight: Tensor, columns: Tensor, kW: int, kH: int, dW: int, dH: int,
                               padW: int, padH: int, dilationW: int, dilationH: int, group: int,
                               deformable_group: int, im2col_step: int) -> None:
    """Fills the gradients of the input and of the offsets."""
    geometry = Geometry((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    found = deform_conv_gradients(gradOutput, input, weight, offset, None, None, geometry)
    _fill([gradInput, gradOffset], [found[0], found[2]])


@_stands_in(TORCHVISION)
def deform_conv_backward_parameters(input: Tensor, offset: Tensor, gradOutput: Tensor, gradWeight: Tensor,
                                    columns: Tensor, ones: Tensor, kW: int, kH: int, dW: int, dH: int, padW: int,
                                    padH: int, dilationW: int, dilationH: int, group: int, deformable_group: int,
                                    scale: float, im2col_step: int) -> None:
    """Adds to the gradient of the weight."""
    geometry = Geometry((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    # The gradient of the weight does not depend on the weight, which is not given.
    weight = torch.zeros_like(gradWeight)
    gradWeight.add_(deform_conv_gradients(gradOutput, input, weight, offset, None, None, geometry)[1], alpha=scale)


@_stands_in(TORCHVISION)
def modulated_deform_conv_forward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor,
                                  mask: Tensor, output: Tensor, columns: Tensor, kernel_h: int, kernel_w: int,
                                  stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int,
                                  dilation_w: int, group: int, deformable_group: int, with_bias: bool) -> None:
    """Fills ``output`` by `deform_conv.deform_conv`."""
    geometry = Geometry((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group)
    offset, mask = (_as_mmcv_reads(taps, output.shape[2:]) for taps in (offset, mask))
    output.copy_(deform_conv(input, weight, offset, mask, bias if with_bias else None, geometry))


@_stands_in(TORCHVISION)
def modulated_deform_conv_backward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor,
                                   mask: Tensor, columns: Tensor, grad_input: Tensor, grad_weight: Tensor,
                                   grad_bias: Tensor, grad_offset: Tensor, grad_mask: Tensor, grad_output: Tensor,
                                   kernel_h: int, kernel_w: int, stride_h: int, stride_w: int, pad_h: int, pad_w: int,
                                   dilation_h: int, dilation_w: int, group: int, deformable_group: int,
                                   with_bias: bool) -> None:
    """Fills the gradients."""
    geometry = Geometry((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group)
    offset, mask, grad_offset, grad_mask = (
        _as_mmcv_reads(taps, grad_output.shape[2:]) for taps in (offset, mask, grad_offset, grad_mask))
    *found, of_bias = deform_conv_gradients(grad_output, input, weight, offset, mask, bias if with_bias else None,
                                            geometry)
    _fill([grad_input, grad_weight, grad_offset, grad_mask], found)
    if with_bias:
        grad_bias.copy_(of_bias)


def _as_mmcv_reads(taps: Tensor, size: Sequence[int]) -> Tensor:
    """Offsets or masks of a map as large as the output; a view.

    Of a larger one, as mmdet's DyHead gives for the level above, mmcv takes the first values of each image, as if they
    lay in a map of the output's size.
    """
    count = taps.shape[1] * size[0] * size[1]
    return taps.flatten(1)[:, :count].unflatten(1, (taps.shape[1], *size))


@_stands_in(PLAIN)
def ms_deform_attn_forward(value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor,
                           sampling_locations: Tensor, attention_weights: Tensor, im2col_step: int) -> Tensor:
    """What `attention.deformable_attention` gives, in the precision of the values."""
    attended = attention.deformable_attention(value, value_spatial_shapes, sampling_locations, attention_weights)
    return attended.to(value.dtype)


@_stands_in(PLAIN)
def ms_deform_attn_backward(value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor,
                            sampling_locations: Tensor, attention_weights: Tensor, grad_output: Tensor,
                            grad_value: Tensor, grad_sampling_loc: Tensor, grad_attn_weight: Tensor,
                            im2col_step: int) -> None:
    """Fills the gradients."""
    def attend(values: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return attention.deformable_attention(values, value_spatial_shapes, locations, weights)

    _fill([grad_value, grad_sampling_loc, grad_attn_weight],
          gradients(attend, [value, sampling_locations, attention_weights], grad_output))


@_stands_in(PLAIN)
def sigmoid_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float,
                               alpha: float) -> None:
    """Fills ``output`` by `focal_loss.sigmoid_focal_loss`."""
    output.copy_(focal_loss.sigmoid_focal_loss(input, target, weight, gamma, alpha))


@_stands_in(PLAIN)
def sigmoid_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float,
                                alpha: float) -> None:
    """Fills ``grad_input``, for a gradient of ones."""
    def loss(logits: Tensor) -> Tensor:
        return focal_loss.sigmoid_focal_loss(logits, target, weight, gamma, alpha)

    _fill([grad_input], gradients(loss, [input], torch.ones_like(input)))


@_stands_in(PLAIN)
def softmax_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float,
                               alpha: float) -> None:
    """Fills ``output`` by `focal_loss.softmax_focal_loss`."""
    output.copy_(focal_loss.softmax_focal_loss(input, target, weight, gamma, alpha))


@_stands_in(PLAIN)
def softmax_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor,
                                gamma: float, alpha: float) -> None:
    """Fills ``grad_input``, for a gradient of ones."""
    grad_input.copy_(focal_loss.softmax_focal_loss_gradient(input, target, weight, gamma, alpha))


@_stands_in(PLAIN)
def masked_im2col_forward(im: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, col: Tensor, kernel_h: int,
                          kernel_w: int, pad_h: int, pad_w: int) -> None:
    """Fills ``col`` by `convolutions.masked_columns`."""
    col.copy_(convolutions.masked_columns(im, mask_h_idx, mask_w_idx, (kernel_h, kernel_w), (pad_h, pad_w)))


@_stands_in(PLAIN)
def masked_col2im_forward(col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int,
                          channels: int) -> None:
    """Puts the columns at their places in ``im``."""
    im[0][:, mask_h_idx, mask_w_idx] = col


@_stands_in(PLAIN)
def carafe_naive_forward(features: Tensor, masks: Tensor, output: Tensor, kernel_size: int, group_size: int,
                         scale_factor: int) -> None:
    """Fills ``output`` by `convolutions.carafe`."""
    output.copy_(convolutions.carafe(features, masks, kernel_size, group_size, scale_factor))


@_stands_in(PLAIN)
def carafe_naive_backward(top_grad: Tensor, features: Tensor, masks: Tensor, bottom_grad: Tensor, mask_grad: Tensor,
                          kernel_size: int, group_size: int, scale_factor: int) -> None:
    """Fills the gradients."""
    def enlarge(maps: Tensor, kernels: Tensor) -> Tensor:
        return convolutions.carafe(maps, kernels, kernel_size, group_size, scale_factor)

    _fill([bottom_grad, mask_grad], gradients(enlarge, [features, masks], top_grad))


@_stands_in(PLAIN)
def carafe_forward(features: Tensor, masks: Tensor, rfeatures: Tensor, routput: Tensor, rmasks: Tensor,
                   output: Tensor, kernel_size: int, group_size: int, scale_factor: int) -> None:
    """Fills ``output``, and ``rfeatures`` with the features, as all that the backward is given are those."""
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)


@_stands_in(PLAIN)
def carafe_backward(top_grad: Tensor, rfeatures: Tensor, masks: Tensor, rtop_grad: Tensor, rbottom_grad_hs: Tensor,
                    rbottom_grad: Tensor, rmask_grad: Tensor, bottom_grad: Tensor, mask_grad: Tensor,
                    kernel_size: int, group_size: int, scale_factor: int) -> None:
    """Fills the gradients ``bottom_grad`` and ``mask_grad``."""
    carafe_naive_backward(top_grad, rfeatures, masks, bottom_grad, mask_grad, kernel_size, group_size, scale_factor)


@_stands_in(PLAIN)
def psamask_forward(input: Tensor, output: Tensor, psa_type: int, num_: int, h_feature: int, w_feature: int,
                    h_mask: int, w_mask: int, half_h_mask: int, half_w_mask: int) -> None:
    """Fills ``output`` by `convolutions.psa_mask`."""
    output.copy_(convolutions.psa_mask(input, (h_mask, w_mask), psa_type == 0))


@_stands_in(PLAIN)
def psamask_backward(grad_output: Tensor, grad_input: Tensor, psa_type: int, num_: int, h_feature: int,
                     w_feature: int, h_mask: int, w_mask: int, half_h_mask: int, half_w_mask: int) -> None:
    """Fills ``grad_input``, which does not depend on the masks."""
    def lay_out(masks: Tensor) -> Tensor:
        return convolutions.psa_mask(masks, (h_mask, w_mask), psa_type == 0)

    _fill([grad_input], gradients(lay_out, [torch.zeros_like(grad_input)], grad_output))


@_stands_in(PLAIN)
def active_rotated_filter_forward(input: Tensor, indices: Tensor, output: Tensor) -> None:
    """Fills ``output`` by `convolutions.rotated_filters`."""
    output.copy_(convolutions.rotated_filters(input, indices))


@_stands_in(PLAIN)
def active_rotated_filter_backward(grad_out: Tensor, indices: Tensor, grad_in: Tensor) -> None:
    """Fills ``grad_in``."""
    grad_in.copy_(convolutions.rotated_filters_gradient(grad_out, indices, tuple(grad_in.shape)))


@_stands_in(PLAIN)
def rotated_feature_align_forward(features: Tensor, best_bboxes: Tensor, output: Tensor, spatial_scale: float,
                                  points: int) -> None:
    """Fills ``output`` by `convolutions.rotated_feature_align`."""
    output.copy_(convolutions.rotated_feature_align(features, best_bboxes, spatial_scale, points))


@_stands_in(PLAIN)
def rotated_feature_align_backward(top_grad: Tensor, best_bboxes: Tensor, bottom_grad: Tensor, spatial_scale: float,
                                   points: int) -> None:
    """Fills ``bottom_grad``, which does not depend on the features."""
    def align(features: Tensor) -> Tensor:
        return convolutions.rotated_feature_align(features, best_bboxes, spatial_scale, points)

    _fill([bottom_grad], gradients(align, [torch.zeros_like(bottom_grad)], top_grad))


@_stands_in(PLAIN)
def fused_bias_leakyrelu(input: Tensor, bias: Tensor, empty: Tensor, act: int, grad: int, alpha: float,
                         scale: float) -> Tensor:
    """What `convolutions.biased_leaky_relu` gives."""
    return convolutions.biased_leaky_relu(input, bias, empty, grad == 1, alpha, scale)


@_stands_in(PLAIN)
def points_in_polygons_forward(points: Tensor, polygons: Tensor, output: Tensor) -> None:
    """Fills ``output`` with 0 and 1 by `point_sets.points_in_polygons`."""
    output.copy_(point_sets.points_in_polygons(points, polygons))


@_stands_in(PLAIN)
def chamfer_distance_forward(xyz1: Tensor, xyz2: Tensor, dist1: Tensor, dist2: Tensor, idx1: Tensor,
                             idx2: Tensor) -> None:
    """Fills the distances and indices by `point_sets.chamfer_distance`, in both directions."""
    _fill([dist1, idx1], point_sets.chamfer_distance(xyz1, xyz2))
    _fill([dist2, idx2], point_sets.chamfer_distance(xyz2, xyz1))


@_stands_in(PLAIN)
def chamfer_distance_backward(xyz1: Tensor, xyz2: Tensor, idx1: Tensor, idx2: Tensor, graddist1: Tensor,
                              graddist2: Tensor, gradxyz1: Tensor, gradxyz2: Tensor) -> None:
    """Fills the gradients of the points."""
    def distances(points: Tensor, others: Tensor) -> Tensor:
        return torch.cat([point_sets.chamfer_distance(points, others)[0],
                          point_sets.chamfer_distance(others, points)[0]], 1)

    _fill([gradxyz1, gradxyz2], gradients(distances, [xyz1, xyz2], torch.cat([graddist1, graddist2], 1)))
