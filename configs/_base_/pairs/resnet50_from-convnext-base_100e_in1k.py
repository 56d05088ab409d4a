# ResNet-50 on ImageNet with the teacher ConvNeXt-B.
_base_ = ['mmpretrain::resnet/resnet50_8xb32_in1k.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmpretrain::convnext/convnext-base_32xb128_in1k.py', checkpoint='zoo'))
