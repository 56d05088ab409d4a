import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmfeatdistill.connectors import ChannelMLP, Conv1x1, ConvBN, Identity, MaskedGenerator, Translator
from mmfeatdistill.losses import FactorTransfer, SquaredError, masked_generative
from mmfeatdistill.taps.feature_map import FeatureShape

STUDENT, TEACHER = FeatureShape(6, 5, 7), FeatureShape(10, 3, 4)
POINTWISE = (ChannelMLP, Conv1x1, ConvBN)
CONNECTORS = (*POINTWISE, Translator, partial(MaskedGenerator, mask_ratio=0.5),
              partial(MaskedGenerator, mask_ratio=0.5, hide='channels'))
GOLDEN = Path(__file__).parents[1] / 'data' / 'golden'


def golden(name):
    with np.load(GOLDEN / f'{name}.npz') as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def load(module, arrays, names):
    """Gives the convolutions of a module, in their order, the weights of the authors' layers."""
    convs = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == len(names)
    for conv, name in zip(convs, names):
        conv.load_state_dict(dict(weight=arrays[f'{name}.weight'], bias=arrays[f'{name}.bias']))


def assert_golden_gradient(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize('connector', CONNECTORS)
def test_any_size_of_map(connector):
    module = connector(STUDENT, TEACHER)
    for shape in ((2, 6, 5, 7), (1, 6, 9, 2), (4, 6, 1, 1)):
        assert module(torch.randn(shape)).shape == (shape[0], 10, *shape[2:])


@pytest.mark.parametrize('connector', POINTWISE)
def test_the_same_for_every_position(connector):
    module = connector(STUDENT, TEACHER).eval()
    feature = torch.randn(2, 6, 4, 4)
    torch.testing.assert_close(module(feature.flip(3)), module(feature).flip(3))
    torch.testing.assert_close(module(feature[..., 1:2, 2:3]), module(feature)[..., 1:2, 2:3])


@pytest.mark.parametrize('connector, reach', [(Translator, 3), (partial(MaskedGenerator, mask_ratio=0.5), 2)])
def test_a_position_sees_as_far_as_the_3x3_convolutions_reach(connector, reach):
    module = connector(STUDENT, TEACHER).eval()
    feature = torch.randn(1, 6, 9, 9)
    changed = feature.clone()
    changed[..., 4, 4] += 1
    rows = (module(feature) != module(changed)).any(1)[0].any(1).nonzero().flatten()
    assert rows.tolist() == list(range(4 - reach, 5 + reach))


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


def test_translator_as_the_authors_of_factor_transfer_have_it():
    g = golden('factor_transfer')
    module = Translator(FeatureShape(6, 6, 6), FeatureShape(4, 6, 6))
    load(module, g, [f'translator.conv{i}' for i in range(3)])
    student = g['student_feature'].clone().requires_grad_()
    factor = module(student)
    torch.testing.assert_close(factor, g['student_factor'], rtol=1e-5, atol=1e-6)
    loss = FactorTransfer()(factor, g['teacher_factor'])
    loss.backward()
    assert loss.item() == pytest.approx(g['ft_loss'].item(), rel=1e-6)
    assert_golden_gradient(student.grad, g['ft_grad_student'])


def test_translator_starts_like_any_convolution():
    torch.manual_seed(0)
    module = Translator(FeatureShape(64, 1, 1), FeatureShape(128, 1, 1))
    torch.manual_seed(0)
    for i, (width_in, width_out) in zip((0, 2, 4), ((64, 64), (64, 128), (128, 128))):
        expected = nn.Conv2d(width_in, width_out, 3)
        assert torch.equal(module[i].weight, expected.weight) and torch.equal(module[i].bias, expected.bias)


def masked_generator(**options):
    """The authors' generator, and their noise."""
    g = golden('mgd')
    module = MaskedGenerator(FeatureShape(6, 7, 5), FeatureShape(10, 7, 5), mask_ratio=0.65, **options)
    load(module, g, ['align', 'generation.0', 'generation.2'])
    return module, g


def test_masked_generator_as_the_authors_of_mgd_have_it(monkeypatch):
    module, g = masked_generator()
    monkeypatch.setattr(module, 'draw_noise', lambda feature: g['uniform_noise'])
    student = g['student'].clone().requires_grad_()
    loss = SquaredError(loss_weight=2e-5)(module(student), g['teacher'])
    loss.backward()
    assert loss.item() == pytest.approx(g['loss'].item(), rel=1e-6)
    assert_golden_gradient(student.grad, g['grad_student'])


@pytest.mark.parametrize('hide', ['positions', 'channels'])
def test_masked_generator_and_squared_error_are_masked_generative(hide):
    module, g = masked_generator(hide=hide)
    torch.manual_seed(3)
    connected = SquaredError()(module(g['student']), g['teacher'])
    torch.manual_seed(3)
    aligned = module.align(g['student'])
    noise = torch.rand(*((3, 1, 7, 5) if hide == 'positions' else (3, 10, 1, 1)))
    expected = masked_generative(aligned, g['teacher'], generator=module.generation, noise=noise, mask_ratio=0.65)
    assert torch.equal(connected, expected)


@pytest.mark.parametrize('hide, shared', [('positions', (1,)), ('channels', (2, 3))])
@pytest.mark.parametrize('ratio', [0.25, 0.65])
def test_the_stated_share_is_hidden_and_anew_each_time(hide, shared, ratio):
    module = MaskedGenerator(FeatureShape(16, 8, 8), FeatureShape(16, 8, 8), mask_ratio=ratio, hide=hide)
    assert isinstance(module.align, nn.Identity), 'equal widths need no alignment'
    seen = []
    module.generation.register_forward_pre_hook(lambda _, args: seen.append(args[0] == 0))
    for _ in range(2):
        module(torch.ones(64, 16, 8, 8))
    hidden, again = seen
    assert hidden.float().mean().item() == pytest.approx(ratio, abs=0.03)
    assert torch.equal(hidden, hidden.amin(shared, keepdim=True).expand_as(hidden)), 'entire channels'
    assert not torch.equal(hidden[0], hidden[1]) and not torch.equal(hidden, again)


def test_nothing_is_hidden_in_eval_mode():
    module, g = masked_generator()
    module.eval()
    expected = module.generation(module.align(g['student']))
    assert torch.equal(module(g['student']), expected) and torch.equal(module(g['student']), expected)


@pytest.mark.parametrize('options, message', [
    (dict(mask_ratio=65), 'mask_ratio: must be from 0 to 1, got 65'),
    (dict(mask_ratio=-0.1), 'mask_ratio: must be from 0 to 1, got -0.1'),
    (dict(mask_ratio=0.5, hide='pixels'), "hide: expected 'positions' or 'channels', got 'pixels'")])
def test_masks_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        MaskedGenerator(STUDENT, TEACHER, **options)


def test_conv_bn_against_the_authors_of_ofd():
    """Output in training mode, and the statistics that BatchNorm has after that batch."""
    with np.load(GOLDEN / 'ofd.npz') as arrays:
        g = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name.startswith('connector_')}
    module = ConvBN(FeatureShape(8, 5, 7), FeatureShape(16, 5, 7)).train()
    module[0].weight.data.copy_(g['connector_conv_weight'])
    torch.testing.assert_close(module(g['connector_in']), g['connector_out_train'], rtol=1e-5, atol=1e-6)
    norm = module[1]
    torch.testing.assert_close(norm.running_mean, g['connector_bn_running_mean_after'], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(norm.running_var, g['connector_bn_running_var_after'], rtol=1e-6, atol=0)


def test_identity():
    feature = torch.randn(2, 6, 4, 4)
    assert Identity(STUDENT, TEACHER)(feature) is feature
