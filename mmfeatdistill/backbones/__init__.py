"""Backbones that classic experiments need and no MM library has."""
from mmfeatdistill.backbones.mobilenet_v1 import MobileNetV1
from mmfeatdistill.backbones.wide_resnet import WideResNet

__all__ = ['MobileNetV1', 'WideResNet']
