# Faster R-CNN R18 as the authors of FCFD train.
_base_ = 'faster-rcnn_r50_fpn_180k_coco.py'
model = dict(
    backbone=dict(depth=18, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[64, 128, 256, 512]))
