# ResNet-50 on ImageNet with the teacher ResNet-152.
_base_ = ['mmpretrain::resnet/resnet50_8xb32_in1k.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmpretrain::resnet/resnet152_8xb32_in1k.py', checkpoint='zoo'))
