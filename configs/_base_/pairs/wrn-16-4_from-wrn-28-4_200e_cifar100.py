# WRN-16-4 on CIFAR-100 with the teacher WRN-28-4.
_base_ = ['../../cifar100/wrn-16-4_1xb128_cifar100.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='{{fileDirname}}/../../cifar100/wrn-28-4_1xb128_cifar100.py',
                 checkpoint='work_dirs/wrn-28-4_1xb128_cifar100/epoch_200.pth'))
