"""Passes of no network: features as an objective sees them."""
from types import SimpleNamespace

import torch

from mmfeatdistill.taps.reader import TappedPass


def tapped(features: dict) -> TappedPass:
    """The pass that gave some features."""
    reader = SimpleNamespace(layouts={}, model=None, taps=[], calls={}, predictions=set())
    return TappedPass(features, reader, torch.zeros(1, 3, 8, 8))
