# Student: the network of configs/digits/pspnet_r18-w8-d8_digits.py.
from os.path import dirname

from mmengine.config import Config
from mmseg.models import CrossEntropyLoss, EncoderDecoder, PSPHead, ResNetV1c, SegDataPreProcessor

# Data and schedule are those of the text configs, which a pure-Python config cannot inherit but can read.
globals().update(Config.fromfile(f'{dirname(__file__)}/../../_base_/digits/segmentation.py').to_dict())

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type=EncoderDecoder,
    data_preprocessor=dict(
        type=SegDataPreProcessor, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True, pad_val=0, seg_pad_val=255, size=(96, 96)),
    backbone=dict(
        type=ResNetV1c, depth=18, stem_channels=8, base_channels=8, dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1),
        norm_cfg=norm_cfg, contract_dilation=True),
    decode_head=dict(
        type=PSPHead, in_channels=64, in_index=3, channels=32, num_classes=19, norm_cfg=norm_cfg, align_corners=False,
        loss_decode=dict(type=CrossEntropyLoss, class_weight=[0.2] + [1.0] * 18)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
