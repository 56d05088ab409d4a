# Teacher: ResNet-18 half as wide as the original.
_base_ = 'resnet18-w8_digits.py'

model = dict(
    backbone=dict(stem_channels=32, base_channels=32), head=dict(in_channels=256))
train_cfg = dict(max_epochs=9)
