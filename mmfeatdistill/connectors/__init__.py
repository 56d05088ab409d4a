"""Connectors: modules that bring a student feature to the teacher's width."""
from mmfeatdistill.connectors.channel_mlp import ChannelMLP
from mmfeatdistill.connectors.conv import Conv1x1, ConvBN
from mmfeatdistill.connectors.identity import Identity

__all__ = ['ChannelMLP', 'Conv1x1', 'ConvBN', 'Identity']
