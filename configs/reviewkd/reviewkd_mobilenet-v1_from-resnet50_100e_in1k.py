# ReviewKD on ImageNet, ResNet-50 to MobileNetV1: the stages and the pooled vector, with the settings of the authors' code.
_base_ = '../_base_/pairs/mobilenet-v1_from-resnet50_100e_in1k.py'
stages = [f'backbone.layer{stage}:pre' for stage in (1, 2, 3, 4)]
model = dict(
    objectives=dict(review=dict(type='ReviewKD', taps=[*stages, 'neck'], mid_channels=256, loss_weight=8)))
