"""Random weights for networks that no checkpoint gives any."""
from collections.abc import Mapping

from torch import nn


def draw_weights(model: nn.Module) -> None:
    """Initialises a network as its library does, but loads nothing.

    Many networks have parameters that hold whatever was in memory until they are initialised, such as the level
    embeddings of deformable transformers and the scales of SSD.

    Args:
        model (nn.Module): Of any MM library; what its ``init_cfg`` would load is left out, for good.

    Examples:
        >>> from mmengine.model import BaseModule
        >>> model = BaseModule(init_cfg=dict(type='Pretrained', checkpoint='nowhere.pth'))
        >>> draw_weights(model)
        >>> print(model.init_cfg)
        None
    """
    for module in model.modules():
        init_cfg = getattr(module, 'init_cfg', None)
        entries = [init_cfg] if isinstance(init_cfg, Mapping) else list(init_cfg or [])
        drawn = [entry for entry in entries if entry.get('type') != 'Pretrained']
        if len(drawn) < len(entries):
            module.init_cfg = drawn or None
    if hasattr(model, 'init_weights'):
        model.init_weights()
