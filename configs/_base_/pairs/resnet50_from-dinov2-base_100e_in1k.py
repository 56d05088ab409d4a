# ResNet-50 on ImageNet with the patch tokens of the teacher DINOv2 ViT-B/14, which has no head.
_base_ = ['mmpretrain::resnet/resnet50_8xb32_in1k.py', '../distill.py']
_package = __import__('mmfeatdistill.zoo.configs')
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(
        config='{{fileDirname}}/../teachers/vit-base-p14_dinov2-pre_featmap.py',
        checkpoint=_package.zoo.configs.zoo_weights(
            _package.stock_config('mmpretrain::dinov2/vit-base-p14_dinov2-pre_headless.py'))))
