# MobileNetV2 on COCO 2014 with several labels, with one more linear layer that widens its feature to that of ResNet-101
# before the classifier (LSH's "2FC").
_base_ = [
    'mmpretrain::_base_/models/mobilenet_v2_1x.py', '../_base_/multi_label/coco14_448px.py',
    '../_base_/multi_label/schedule_60e.py', 'mmpretrain::_base_/default_runtime.py'
]
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='mmcls://mobilenet_v2')),
    neck=dict(_delete_=True, type='LinearNeck', in_channels=1280, out_channels=2048, gap_dim=2, norm_cfg=None),
    head=dict(_delete_=True, type='MultiLabelLinearClsHead', num_classes=80, in_channels=2048,
              # The mean over the classes, as in the authors' code; without a weight it is the sum.
              loss=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1 / 80)))
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1, save_best='multi-label/mAP'))
