# Student: the network of configs/digits/resnet18-w8_digits.py.
from os.path import dirname

from mmengine.config import Config
from mmpretrain.models import CrossEntropyLoss, GlobalAveragePooling, ImageClassifier, LinearClsHead, ResNet

# Data and schedule are those of the text configs, which a pure-Python config cannot inherit but can read.
globals().update(Config.fromfile(f'{dirname(__file__)}/../../_base_/digits/classification.py').to_dict())

model = dict(
    type=ImageClassifier,
    backbone=dict(type=ResNet, depth=18, stem_channels=8, base_channels=8, out_indices=(3, )),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=10, in_channels=64, topk=(1, ), loss=dict(type=CrossEntropyLoss)))
