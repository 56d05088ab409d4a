# ResNet-101 on COCO 2014 with several labels, as the authors of LSH train their teacher.
_base_ = [
    'mmpretrain::_base_/models/resnet101.py', '../_base_/multi_label/coco14_448px.py',
    '../_base_/multi_label/schedule_60e.py', 'mmpretrain::_base_/default_runtime.py'
]
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')),
    head=dict(_delete_=True, type='MultiLabelLinearClsHead', num_classes=80, in_channels=2048,
              # The mean over the classes, as in the authors' code; without a weight it is the sum.
              loss=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1 / 80)))
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1, save_best='multi-label/mAP'))
