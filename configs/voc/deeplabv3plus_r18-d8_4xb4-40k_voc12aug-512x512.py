# DeepLabV3+ R18 on VOC2012 (aug): mmseg's network for Cityscapes in mmseg's recipe for VOC.
_base_ = [
    __import__('mmfeatdistill').stock_config('mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-40k_voc12aug-512x512.py')
]
model = dict(
    _scope_='mmseg',
    pretrained='open-mmlab://resnet18_v1c',
    backbone=dict(depth=18),
    decode_head=dict(in_channels=512, channels=128, c1_in_channels=64, c1_channels=12),
    auxiliary_head=dict(in_channels=256, channels=64))
