"""Small one-stage detectors, all from stock configs."""
from typing import Any

from tests.helpers.models import stock

_CONFIGS = dict(
    gfl='mmdet::gfl/gfl_r50_fpn_1x_coco.py', atss='mmdet::atss/atss_r50_fpn_1x_coco.py',
    retinanet='mmdet::retinanet/retinanet_r50_fpn_2x_coco.py',
    fcos='mmdet::fcos/fcos_r50-caffe_fpn_gn-head_ms-640-800-2x_coco.py',
    fcos_normed='mmdet::fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py',
    rtmdet='mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py')
DENSE = tuple(_CONFIGS)


def dense_detector(name: str, width: int = 8, channels: int = 16, convs: int = 4, classes: int = 10) -> Any:
    """One of :data:`DENSE`, with ResNet-18; RTMDet keeps its backbone and two convolutions in each tower."""
    model = stock(_CONFIGS[name])
    model.bbox_head.update(num_classes=classes)
    if name == 'rtmdet':
        model.backbone.update(deepen_factor=0.167, widen_factor=width / 64, init_cfg=None)
        model.neck.update(in_channels=[4 * width, 8 * width, 16 * width], out_channels=channels, num_csp_blocks=1)
        model.bbox_head.update(in_channels=channels, feat_channels=channels)
        for part in (model.backbone, model.neck, model.bbox_head):
            part.norm_cfg = dict(type='BN')
        return model
    model.backbone.update(depth=18, stem_channels=width, base_channels=width, frozen_stages=-1, norm_eval=False,
                          style='pytorch', norm_cfg=dict(type='BN', requires_grad=True), init_cfg=None)
    model.neck.update(in_channels=[width, 2 * width, 4 * width, 8 * width], out_channels=channels)
    model.bbox_head.update(in_channels=channels, feat_channels=channels, stacked_convs=convs)
    if name != 'retinanet':  # 32 groups of one channel each would not take the deepest level of a small image
        model.bbox_head.norm_cfg = dict(type='GN', num_groups=4)
    return model


def towers(name: str, conv: int = 2) -> list[str]:
    """The taps of a convolution of both towers."""
    if name == 'rtmdet':
        return [f'bbox_head.{tower}.{level}.{min(conv, 1)}' for tower in ('cls_convs', 'reg_convs')
                for level in range(3)]
    return [f'bbox_head.{tower}.{conv}:each' for tower in ('cls_convs', 'reg_convs')]
