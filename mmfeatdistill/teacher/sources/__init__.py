"""Where networks come from that are no MM models: one file for each library."""
from mmfeatdistill.teacher.sources.module import ModuleNetwork
from mmfeatdistill.teacher.sources.timm import TimmNetwork
from mmfeatdistill.teacher.sources.torchvision import TorchvisionNetwork
from mmfeatdistill.teacher.sources.transformers import TransformersNetwork

__all__ = ['ModuleNetwork', 'TimmNetwork', 'TorchvisionNetwork', 'TransformersNetwork']
