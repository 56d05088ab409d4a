# Faster R-CNN MobileNetV2 as the authors of FCFD train: the FPN reads the last block of each stride.
_base_ = 'faster-rcnn_r50_fpn_180k_coco.py'
model = dict(
    backbone=dict(
        _delete_=True, type='MobileNetV2', out_indices=(1, 2, 4, 6), norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://mmdet/mobilenet_v2')),
    neck=dict(in_channels=[24, 32, 96, 320]))
