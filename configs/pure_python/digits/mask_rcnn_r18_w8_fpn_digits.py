# Student: the network of configs/digits/mask-rcnn_r18-w8_fpn_digits.py.
from os.path import dirname

from mmcv.ops import RoIAlign
from mmdet.models.detectors import MaskRCNN
from mmdet.models.losses import CrossEntropyLoss
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmengine.config import Config, read_base

with read_base():
    from .faster_rcnn_r18_w8_fpn_digits import *

# Data and schedule are those of the text configs, which a pure-Python config cannot inherit but can read.
globals().update(Config.fromfile(f'{dirname(__file__)}/../../_base_/digits/instance.py').to_dict())

model.update(type=MaskRCNN)
model.data_preprocessor.update(pad_mask=True)
model.roi_head.update(
    mask_roi_extractor=dict(
        type=SingleRoIExtractor, out_channels=32, featmap_strides=[4, 8, 16, 32],
        roi_layer=dict(type=RoIAlign, output_size=14, sampling_ratio=1)),
    mask_head=dict(
        type=FCNMaskHead, num_convs=2, in_channels=32, conv_out_channels=32, num_classes=10,
        loss_mask=dict(type=CrossEntropyLoss, use_mask=True)))
model.train_cfg.rcnn.update(mask_size=28)
model.train_cfg.rcnn.assigner.update(match_low_quality=True)
model.test_cfg.rcnn.update(mask_thr_binary=0.5)
