# ResNet-34 on Pascal VOC 2007 with several labels, as the authors of LSH train their teacher.
_base_ = [
    'mmpretrain::_base_/models/resnet34.py', '../_base_/multi_label/voc07_448px.py',
    '../_base_/multi_label/schedule_60e.py', 'mmpretrain::_base_/default_runtime.py'
]
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet34')),
    head=dict(_delete_=True, type='MultiLabelLinearClsHead', num_classes=20, in_channels=512,
              # The mean over the classes, as theirs; without a weight it is the sum.
              loss=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1 / 20)))
optim_wrapper = dict(optimizer=dict(weight_decay=1e-5))
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1, save_best='multi-label/mAP'))
auto_scale_lr = dict(base_batch_size=16)
