import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmfeatdistill.connectors import ChannelMLP, Conv1x1, ConvBN, Identity
from mmfeatdistill.features import FeatureShape

STUDENT, TEACHER = FeatureShape(6, 5, 7), FeatureShape(10, 3, 4)
CONNECTORS = (ChannelMLP, Conv1x1, ConvBN)


@pytest.mark.parametrize('connector', CONNECTORS)
def test_any_size_of_map(connector):
    module = connector(STUDENT, TEACHER)
    for shape in ((2, 6, 5, 7), (1, 6, 9, 2), (4, 6, 1, 1)):
        assert module(torch.randn(shape)).shape == (shape[0], 10, *shape[2:])


@pytest.mark.parametrize('connector', CONNECTORS)
def test_the_same_for_every_position(connector):
    module = connector(STUDENT, TEACHER).eval()
    feature = torch.randn(2, 6, 4, 4)
    torch.testing.assert_close(module(feature.flip(3)), module(feature).flip(3))
    torch.testing.assert_close(module(feature[..., 1:2, 2:3]), module(feature)[..., 1:2, 2:3])


@pytest.mark.parametrize('connector', CONNECTORS)
def test_the_input_is_left_alone(connector):
    feature = torch.randn(2, 6, 4, 4)
    version, copy = feature._version, feature.clone()
    connector(STUDENT, TEACHER)(feature)
    assert feature._version == version and torch.equal(feature, copy)


@pytest.mark.parametrize('connector', CONNECTORS)
def test_every_parameter_learns(connector):
    module = connector(STUDENT, TEACHER)
    feature = torch.randn(2, 6, 4, 4, requires_grad=True)
    module(feature).square().mul(torch.rand(2, 10, 4, 4)).sum().backward()
    assert feature.grad.abs().sum() > 0
    for name, parameter in module.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_channel_mlp_is_a_perceptron_over_channels():
    module = ChannelMLP(STUDENT, TEACHER)
    feature = torch.randn(2, 6, 5, 7)
    (w1, b1), (w2, b2) = ((conv.weight.flatten(1), conv.bias) for conv in (module[0], module[2]))
    rows = feature.permute(0, 2, 3, 1)
    expected = F.linear(F.relu(F.linear(rows, w1, b1)), w2, b2).permute(0, 3, 1, 2)
    torch.testing.assert_close(module(feature), expected)
    assert w1.shape == (10, 6), "hidden as wide as the teacher"
    assert [tuple(p.shape) for p in ChannelMLP(STUDENT, TEACHER, hidden_channels=3).parameters()] == [
        (3, 6, 1, 1), (3,), (10, 3, 1, 1), (10,)]


@pytest.mark.parametrize('hidden', [0, -2, 1.5, '8'])
def test_channel_mlp_of_no_width(hidden):
    with pytest.raises(ValueError, match='hidden_channels: expected a positive integer'):
        ChannelMLP(STUDENT, TEACHER, hidden_channels=hidden)


def test_conv_bn_as_the_authors_of_ofd_have_it():
    """Their code: a 1x1 convolution without bias from N(0, 2 / C_t), then BatchNorm from 1 and 0."""
    torch.manual_seed(0)
    module = ConvBN(FeatureShape(256, 1, 1), FeatureShape(128, 1, 1))
    convs = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(convs) == len(norms) == 1 and convs[0].bias is None
    assert convs[0].weight.std().item() == pytest.approx(math.sqrt(2 / 128), rel=0.02)
    assert (norms[0].weight == 1).all() and (norms[0].bias == 0).all()
    feature = torch.randn(8, 256, 3, 3)
    torch.testing.assert_close(module(feature), F.batch_norm(
        F.conv2d(feature, convs[0].weight), torch.zeros(128), torch.ones(128), training=True), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, nn.ReLU) for m in module.modules()), 'negative values must be possible'


def test_identity():
    feature = torch.randn(2, 6, 4, 4)
    assert Identity(STUDENT, TEACHER)(feature) is feature
