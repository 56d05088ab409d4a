# Student: PSPNet with a ResNet-18 an eighth as wide as the original.
_base_ = [
    __import__('mmfeatdistill').stock_config('mmseg::_base_/models/pspnet_r50-d8.py'),
    '../_base_/digits/segmentation.py'
]

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    _scope_='mmseg',
    data_preprocessor=dict(size=(96, 96)),
    pretrained=None,
    backbone=dict(depth=18, stem_channels=8, base_channels=8, norm_cfg=norm_cfg),
    decode_head=dict(
        in_channels=64,
        channels=32,
        norm_cfg=norm_cfg,
        # Nine pixels of ten are background, and mIoU weighs the classes alike.
        loss_decode=dict(class_weight=[0.2] + [1.0] * 18)),
    auxiliary_head=None)
