# WRN-16-4 on CIFAR-100 with an ensemble: five WRN-28-4, each trained from a seed of its own.
_base_ = 'wrn-16-4_from-wrn-28-4_200e_cifar100.py'
config = {{_base_.model.teacher.config}}
model = dict(teacher=[
    dict(config=config, checkpoint='work_dirs/wrn-28-4_1xb128_cifar100/epoch_200.pth'),
    dict(config=config, checkpoint='work_dirs/wrn-28-4_1xb128_cifar100_2/epoch_200.pth'),
    dict(config=config, checkpoint='work_dirs/wrn-28-4_1xb128_cifar100_3/epoch_200.pth'),
    dict(config=config, checkpoint='work_dirs/wrn-28-4_1xb128_cifar100_4/epoch_200.pth'),
    dict(config=config, checkpoint='work_dirs/wrn-28-4_1xb128_cifar100_5/epoch_200.pth')])
