# Student: the network of configs/digits/faster-rcnn_r18-w8_fpn_digits.py.
from os.path import dirname

from mmcv.ops import RoIAlign, nms
from mmdet.models.backbones import ResNet
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.dense_heads import RPNHead
from mmdet.models.detectors import FasterRCNN
from mmdet.models.losses import CrossEntropyLoss, L1Loss
from mmdet.models.necks import FPN
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder, MaxIoUAssigner, RandomSampler
from mmengine.config import Config

# Data and schedule are those of the text configs, which a pure-Python config cannot inherit but can read.
globals().update(Config.fromfile(f'{dirname(__file__)}/../../_base_/digits/detection.py').to_dict())

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type=FasterRCNN,
    data_preprocessor=dict(
        type=DetDataPreprocessor, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True, pad_size_divisor=32),
    backbone=dict(
        type=ResNet, depth=18, stem_channels=8, base_channels=8, frozen_stages=-1, norm_eval=False,
        norm_cfg=norm_cfg, style='pytorch'),
    neck=dict(type=FPN, in_channels=[8, 16, 32, 64], out_channels=32, num_outs=4, norm_cfg=norm_cfg),
    rpn_head=dict(
        type=RPNHead, in_channels=32, feat_channels=32,
        anchor_generator=dict(type=AnchorGenerator, scales=[5], ratios=[1.0, 2.0], strides=[4, 8, 16, 32]),
        bbox_coder=dict(type=DeltaXYWHBBoxCoder),
        loss_cls=dict(type=CrossEntropyLoss, use_sigmoid=True),
        loss_bbox=dict(type=L1Loss)),
    roi_head=dict(
        type=StandardRoIHead,
        bbox_roi_extractor=dict(
            type=SingleRoIExtractor, out_channels=32, featmap_strides=[4, 8, 16, 32],
            roi_layer=dict(type=RoIAlign, output_size=7, sampling_ratio=1)),
        bbox_head=dict(
            type=Shared2FCBBoxHead, in_channels=32, fc_out_channels=128, roi_feat_size=7, num_classes=10,
            bbox_coder=dict(type=DeltaXYWHBBoxCoder, target_stds=[0.1, 0.1, 0.2, 0.2]),
            loss_cls=dict(type=CrossEntropyLoss, use_sigmoid=False),
            loss_bbox=dict(type=L1Loss))),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(type=MaxIoUAssigner, pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3),
            sampler=dict(type=RandomSampler, num=64, pos_fraction=0.5, add_gt_as_proposals=False),
            allowed_border=-1, pos_weight=-1, debug=False),
        rpn_proposal=dict(
            nms_pre=100, max_per_img=40, nms=dict(type=nms, iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(
            assigner=dict(
                type=MaxIoUAssigner, pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False),
            sampler=dict(type=RandomSampler, num=32, pos_fraction=0.5),
            pos_weight=-1, debug=False)),
    test_cfg=dict(
        rpn=dict(nms_pre=60, max_per_img=30, nms=dict(type=nms, iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(score_thr=0.05, nms=dict(type=nms, iou_threshold=0.5), max_per_img=30)))
