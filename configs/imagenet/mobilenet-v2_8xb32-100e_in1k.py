# MobileNetV2 on ImageNet by the recipe of mmpretrain's ResNets, with which papers on distillation train small students
# (100 epochs); mmpretrain's own has 300.
_base_ = [
    'mmpretrain::_base_/models/mobilenet_v2_1x.py', 'mmpretrain::_base_/datasets/imagenet_bs32.py',
    'mmpretrain::_base_/schedules/imagenet_bs256.py', 'mmpretrain::_base_/default_runtime.py'
]
