# Teacher: Mask R-CNN with a ResNet-18 half as wide as the original.
_base_ = 'mask-rcnn_r18-w8_fpn_digits.py'

channels = 64
model = dict(
    backbone=dict(stem_channels=32, base_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=channels),
    rpn_head=dict(in_channels=channels, feat_channels=channels),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels),
        bbox_head=dict(in_channels=channels),
        mask_roi_extractor=dict(out_channels=channels),
        mask_head=dict(in_channels=channels, conv_out_channels=channels)))
train_cfg = dict(max_epochs=6)
