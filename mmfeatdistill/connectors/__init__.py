"""Connectors: modules that bring a student feature to the teacher's width."""
from mmfeatdistill.connectors.attention_gate import AttentionGate
from mmfeatdistill.connectors.bridge import Bridge
from mmfeatdistill.connectors.channel_mlp import ChannelMLP
from mmfeatdistill.connectors.conv import Conv1x1, ConvBN
from mmfeatdistill.connectors.cross_attention import CrossAttention
from mmfeatdistill.connectors.identity import Identity
from mmfeatdistill.connectors.masked_generator import MaskedGenerator
from mmfeatdistill.connectors.translator import Translator

__all__ = ['AttentionGate', 'Bridge', 'ChannelMLP', 'Conv1x1', 'ConvBN', 'CrossAttention', 'Identity',
           'MaskedGenerator', 'Translator']
