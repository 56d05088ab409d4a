# WRN-16-2 on CIFAR-100 with the teacher WRN-40-2, by the recipe of Contrastive Representation Distillation
# (arXiv 1910.10699), which later papers share.
_base_ = ['../../cifar100/wrn-16-2_1xb128_cifar100.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='{{fileDirname}}/../../cifar100/wrn-40-2_1xb128_cifar100.py',
                 checkpoint='work_dirs/wrn-40-2_1xb128_cifar100/epoch_200.pth'))
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = dict(milestones=[150, 180, 210], gamma=0.1)
train_cfg = dict(max_epochs=240)
auto_scale_lr = dict(base_batch_size=64)
