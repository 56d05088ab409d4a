# Student: ResNet-18 an eighth as wide as the original.
_base_ = ['mmpretrain::_base_/models/resnet18.py', '../_base_/digits/classification.py']

model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    head=dict(num_classes=10, in_channels=64, topk=(1, )))
