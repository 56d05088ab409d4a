# ResNet-18 on ImageNet with the teacher ResNet-34.
_base_ = ['mmpretrain::resnet/resnet18_8xb32_in1k.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmpretrain::resnet/resnet34_8xb32_in1k.py', checkpoint='zoo'))
