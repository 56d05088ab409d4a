# WRN-40-2 on CIFAR-100.
_base_ = 'wrn-16-2_1xb128_cifar100.py'
model = dict(backbone=dict(depth=40, widen_factor=2), head=dict(in_channels=128))
