# SSD300 R18.
_base_ = 'ssd300_r50_voc0712.py'
widths = (128, 256, 512, 512, 256, 256)
model = dict(
    backbone=dict(depth=18, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=widths[:3], out_channels=widths),
    bbox_head=dict(in_channels=widths))
