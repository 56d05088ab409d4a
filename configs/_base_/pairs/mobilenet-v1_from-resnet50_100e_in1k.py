# MobileNetV1 on ImageNet with the teacher ResNet-50.
_base_ = ['../../imagenet/mobilenet-v1_8xb32-100e_in1k.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmpretrain::resnet/resnet50_8xb32_in1k.py', checkpoint='zoo'))
