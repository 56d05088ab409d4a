"""Backbones that classic experiments need and no MM library has."""
from mmfeatdistill.backbones.wide_resnet import WideResNet

__all__ = ['WideResNet']
