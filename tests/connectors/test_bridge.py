"""Bridges agree with those of FCFD's authors, in their three forms."""
from pathlib import Path

import numpy as np
import pytest
import torch

from mmfeatdistill.connectors import Bridge
from mmfeatdistill.taps.feature_map import FeatureShape

GOLDEN = np.load(Path(__file__).parents[1] / 'data' / 'golden' / 'fcfd.npz')


@pytest.mark.parametrize('form, activated', [('same', False), ('same_lrelu', True), ('down', False), ('up', False)])
def test_outputs_and_gradients_of_the_authors(form, activated):
    golden = {name: torch.from_numpy(GOLDEN[f'bridge_{form}_{name}']) for name in ('in', 'out', 'grad', 'weight')}
    bridge = Bridge(FeatureShape(*golden['in'].shape[1:]), FeatureShape(*golden['out'].shape[1:]), activated=activated)
    conv = bridge[0]
    assert conv.weight.shape == golden['weight'].shape
    assert (conv.bias is not None) == (f'bridge_{form}_bias' in GOLDEN)
    conv.weight.data.copy_(golden['weight'])
    if conv.bias is not None:
        conv.bias.data.copy_(torch.from_numpy(GOLDEN[f'bridge_{form}_bias']))
    feature = golden['in'].requires_grad_()
    output = bridge(feature)
    torch.testing.assert_close(output, golden['out'], rtol=1e-5, atol=1e-5)
    output.square().sum().backward()
    assert (feature.grad - golden['grad']).norm() <= 1e-4 * max(golden['grad'].norm(), 1)


def test_initialization():
    conv = Bridge(FeatureShape(64, 8, 8), FeatureShape(128, 8, 8))[0]
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.05)
