# WRN-16-4 on CIFAR-100.
_base_ = 'wrn-16-2_1xb128_cifar100.py'
model = dict(backbone=dict(depth=16, widen_factor=4), head=dict(in_channels=256))
