"""Which operators mmcv has compiled, and what happens when one is called that nothing stands in for."""
from collections.abc import Callable
from typing import Any

from mmfeatdistill.version import __version__

# What mmcv 2.0 to 2.3 ask their compiled extension for, in the order of mmcv/ops.
NAMES = (
    'active_rotated_filter_forward', 'active_rotated_filter_backward', 'assign_score_withk_forward',
    'assign_score_withk_backward', 'ball_query_forward', 'stack_ball_query_forward', 'bbox_overlaps',
    'bezier_align_forward', 'bezier_align_backward', 'bias_act', 'border_align_forward', 'border_align_backward',
    'box_iou_quadri', 'box_iou_rotated', 'carafe_naive_forward', 'carafe_naive_backward', 'carafe_forward',
    'carafe_backward', 'chamfer_distance_forward', 'chamfer_distance_backward', 'contour_expand', 'convex_iou',
    'convex_giou', 'correlation_forward', 'correlation_backward', 'deform_conv_forward', 'deform_conv_backward_input',
    'deform_conv_backward_parameters', 'deform_roi_pool_forward', 'deform_roi_pool_backward',
    'diff_iou_rotated_sort_vertices_forward', 'filtered_lrelu', 'filtered_lrelu_act_', 'sigmoid_focal_loss_forward',
    'sigmoid_focal_loss_backward', 'softmax_focal_loss_forward', 'softmax_focal_loss_backward',
    'furthest_point_sampling_forward', 'furthest_point_sampling_with_dist_forward', 'fused_bias_leakyrelu',
    'gather_points_forward', 'gather_points_backward', 'group_points_forward', 'group_points_backward',
    'stack_group_points_forward', 'stack_group_points_backward', 'get_compiler_version', 'get_compiling_cuda_version',
    'iou3d_boxes_overlap_bev_forward', 'iou3d_nms3d_forward', 'iou3d_nms3d_normal_forward', 'knn_forward',
    'line_nms_forward', 'masked_im2col_forward', 'masked_col2im_forward', 'min_area_polygons',
    'modulated_deform_conv_forward', 'modulated_deform_conv_backward', 'ms_deform_attn_backward',
    'ms_deform_attn_forward', 'nms', 'softnms', 'nms_match', 'nms_rotated', 'nms_quadri', 'pixel_group',
    'points_in_boxes_part_forward', 'points_in_boxes_cpu_forward', 'points_in_boxes_all_forward',
    'points_in_polygons_forward', 'prroi_pool_forward', 'prroi_pool_backward', 'prroi_pool_coor_backward',
    'psamask_forward', 'psamask_backward', 'riroi_align_rotated_forward', 'riroi_align_rotated_backward',
    'roi_align_forward', 'roi_align_backward', 'roi_align_rotated_forward', 'roi_align_rotated_backward',
    'roi_pool_forward', 'roi_pool_backward', 'roiaware_pool3d_forward', 'roiaware_pool3d_backward',
    'roipoint_pool3d_forward', 'rotated_feature_align_forward', 'rotated_feature_align_backward',
    'dynamic_point_to_voxel_forward', 'dynamic_point_to_voxel_backward', 'get_indice_pairs_2d_forward',
    'get_indice_pairs_3d_forward', 'get_indice_pairs_4d_forward', 'get_indice_pairs_2d_backward',
    'get_indice_pairs_3d_backward', 'indice_conv_forward', 'indice_conv_backward', 'fused_indice_conv_forward',
    'indice_maxpool_forward', 'indice_maxpool_backward', 'sync_bn_forward_mean', 'sync_bn_forward_var',
    'sync_bn_forward_output', 'sync_bn_backward_param', 'sync_bn_backward_data', 'three_interpolate_forward',
    'three_interpolate_backward', 'three_nn_forward', 'tin_shift_forward', 'tin_shift_backward', 'upfirdn2d',
    'dynamic_voxelize_forward', 'hard_voxelize_forward',
)
WHEELS = ('2.4.1', '2.8', '2.9', '2.10', '2.12')
HOW_TO_COMPILE = (
    'Compiled operators come with the wheels that `pip install onedl-mim && mim install onedl-mmcv` finds for torch '
    f'{", ".join(WHEELS[:-1])} and {WHEELS[-1]}, or by building mmcv next to an installed torch of at most 2.12: '
    '`CFLAGS="-O3 -g0" pip install --no-build-isolation onedl-mmcv==2.3.6`.')


class MissingOperatorError(NotImplementedError):
    """An operator of mmcv that is neither compiled nor stood in for."""


def missing_operator(name: str) -> Callable:
    """What is called in place of an operator that is not there.

    Args:
        name (str): Such as ``'knn_forward'``.

    Returns:
        Callable: Takes anything and raises a `MissingOperatorError`.

    Examples:
        >>> missing_operator('knn_forward')()
        Traceback (most recent call last):
        mmfeatdistill.mmcv_ops.operators.MissingOperatorError: mmcv's operator 'knn_forward' is not there: ...
    """
    def raise_missing(*_: Any, **__: Any) -> None:
        raise MissingOperatorError(
            f'mmcv\'s operator {name!r} is not there: mmcv was installed without compiled operators, and mmfeatdistill '
            f'{__version__} has nothing that stands in for this one. {HOW_TO_COMPILE}')

    raise_missing.__name__ = raise_missing.__qualname__ = name
    return raise_missing
