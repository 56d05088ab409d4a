# WRN-16-2 on CIFAR-100, by the recipe of Wide Residual Networks (arXiv 1605.07146, section 3.4).
# Crops are padded by zeros, as in mmpretrain; theirs by reflections.
_base_ = [
    'mmpretrain::_base_/datasets/cifar100_bs16.py', 'mmpretrain::_base_/schedules/cifar10_bs128.py',
    'mmpretrain::_base_/default_runtime.py'
]
model = dict(
    _scope_='mmpretrain',
    type='ImageClassifier',
    backbone=dict(type='mmfeatdistill.WideResNet', depth=16, widen_factor=2),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=100, in_channels=128, loss=dict(type='CrossEntropyLoss')))
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(weight_decay=5e-4, nesterov=True))
param_scheduler = dict(milestones=[60, 120, 160], gamma=0.2)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1, save_best='accuracy/top1'))
