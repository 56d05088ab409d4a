# ReviewKD on ImageNet, ResNet-34 to ResNet-18: the stages and the pooled vector, with the settings of the authors' code.
_base_ = '../_base_/pairs/resnet18_from-resnet34_100e_in1k.py'
stages = [f'backbone.layer{stage}:pre' for stage in (1, 2, 3, 4)]
model = dict(
    objectives=dict(review=dict(type='ReviewKD', taps=[*stages, 'neck'], mid_channels=512, loss_weight=1)))
