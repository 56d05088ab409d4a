# MobileNetV1, which no MM library has, on ImageNet by the recipe of mmpretrain's ResNets (100 epochs).
_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'
model = dict(
    backbone=dict(_delete_=True, type='mmfeatdistill.MobileNetV1'),
    head=dict(in_channels=1024))
