# Teacher: PSPNet with a ResNet-18 half as wide as the original.
_base_ = 'pspnet_r18-w8-d8_digits.py'

model = dict(
    backbone=dict(stem_channels=32, base_channels=32),
    decode_head=dict(in_channels=256, channels=64))
train_cfg = dict(max_epochs=7)
