# OFD on ImageNet, ResNet-50 to MobileNetV1: all stages, with the settings of the authors' code.
_base_ = '../_base_/pairs/mobilenet-v1_from-resnet50_100e_in1k.py'
model = dict(
    teacher=dict(batch_statistics=True),
    objectives=dict(
        stages=dict(type='OFD', taps=[f'backbone.layer{stage}:pre' for stage in (1, 2, 3, 4)], loss_weight=1e-4)))
optim_wrapper = dict(optimizer=dict(nesterov=True))
