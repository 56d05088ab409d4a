# Student: Faster R-CNN with a ResNet-18 an eighth as wide as the original.
_base_ = ['mmdet::_base_/models/faster-rcnn_r50_fpn.py', '../_base_/digits/detection.py']

norm_cfg = dict(type='BN', requires_grad=True)
channels = 32
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    # Trained from scratch: nothing is frozen and BatchNorm learns its statistics.
    backbone=dict(
        depth=18,
        stem_channels=8,
        base_channels=8,
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None),
    neck=dict(
        in_channels=[8, 16, 32, 64], out_channels=channels, num_outs=4, norm_cfg=norm_cfg),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        # Digits are 12 to 60 pixels high and never wider than high.
        anchor_generator=dict(scales=[5], ratios=[1.0, 2.0], strides=[4, 8, 16, 32])),
    roi_head=dict(
        bbox_roi_extractor=dict(
            out_channels=channels, roi_layer=dict(sampling_ratio=1)),
        bbox_head=dict(in_channels=channels, fc_out_channels=128, num_classes=10)),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=100, max_per_img=40),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.5))),
    test_cfg=dict(
        rpn=dict(nms_pre=60, max_per_img=30), rcnn=dict(max_per_img=30)))
