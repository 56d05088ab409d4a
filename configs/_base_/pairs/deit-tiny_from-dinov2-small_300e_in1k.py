# DeiT-Ti on ImageNet with the teacher DINOv2 ViT-S/14, which has no head.
_base_ = ['mmpretrain::deit/deit-tiny_4xb256_in1k.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmpretrain::dinov2/vit-small-p14_dinov2-pre_headless.py', checkpoint='zoo'))
