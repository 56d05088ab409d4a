"""WideResNet: the published sizes, and taps at the places that its pre-activation blocks offer."""
import math

import pytest
import torch
from mmengine import registry as root
from torch import nn

from mmfeatdistill.backbones import WideResNet
from mmfeatdistill.objectives import OFD
from tests.helpers.models import build, classifier, losses_of, match, teacher
from tests.helpers.models import classification_batch as batch

PRE_ACTIVATIONS = ['backbone.layer2.0.bn1', 'backbone.layer3.0.bn1', 'backbone.bn1']
SUMS = ['backbone.layer1', 'backbone.layer2', 'backbone.layer3']


def wrn(depth=10, widen_factor=1, **options):
    """A classifier of CIFAR's size."""
    model = classifier()
    model.backbone = dict(type='mmfeatdistill.WideResNet', depth=depth, widen_factor=widen_factor, **options)
    model['head'].in_channels = 64 * widen_factor
    return model


def distill(objective, student=None, **options):
    from mmfeatdistill.distillers import FeatureDistiller
    torch.manual_seed(0)
    return FeatureDistiller(student or wrn(), teacher(wrn(16, 2), **options), dict(wide=objective))


# In millions, as arXiv 1605.07146 and arXiv 1904.01866 have them for CIFAR-100.
@pytest.mark.parametrize('depth, widen_factor, millions', [
    (16, 2, 0.70), (16, 4, 2.77), (28, 2, 1.48), (28, 4, 5.87), (40, 4, 9.0), (28, 10, 36.5)])
def test_it_has_as_many_parameters_as_published(depth, widen_factor, millions):
    with torch.device('meta'):
        network = nn.ModuleList([WideResNet(depth, widen_factor), nn.Linear(64 * widen_factor, 100)])
    count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.01)


def test_depth_counts_convolutions():
    convolutions = [m for m in WideResNet(28, 2).modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) == 28 - 3  # the others that the name counts are shortcuts


def test_stages_end_in_sums_but_the_last():
    backbone = WideResNet(10, 1, out_indices=(0, 1, 2)).eval()
    stages = backbone(torch.randn(2, 3, 32, 32))
    assert [stage.shape[1:] for stage in stages] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert [bool((stage < 0).any()) for stage in stages] == [True, True, False]
    [last] = WideResNet(10, 1)(torch.randn(2, 3, 32, 32))
    assert last.shape == (2, 64, 8, 8)


def test_a_block_adds_its_input_as_it_is_or_shares_the_first_activation():
    backbone = WideResNet(16, 2).eval()
    widening, plain = backbone.layer2
    for block in (widening, plain):
        nn.init.zeros_(block.conv2.weight)
    feature = torch.randn(2, 32, 8, 8)
    active = widening.bn1(feature).relu()
    assert torch.equal(widening(feature), widening.shortcut(active))
    feature = torch.randn(2, 64, 4, 4)
    assert torch.equal(plain(feature), feature)


def test_it_starts_from_the_authors_distribution():
    backbone = WideResNet(16, 4)
    backbone.init_weights()
    weight = backbone.layer3[1].conv2.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.01)


@pytest.mark.parametrize('wrong', [dict(depth=18), dict(depth=4), dict(widen_factor=0), dict(out_indices=(3, )),
                                   dict(out_indices=())])
def test_a_network_that_there_is_not_is_an_error_that_names_the_option(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        WideResNet(**dict(dict(depth=16, widen_factor=2), **wrong))


def test_a_config_of_mmpretrain_finds_it_by_its_scope():
    model = build(wrn())
    assert isinstance(model.backbone, root.MODELS.get('mmfeatdistill.WideResNet'))
    losses = model(**model.data_preprocessor(batch(), training=True), mode='loss')
    assert losses['loss'].isfinite()


@pytest.mark.parametrize('taps', [PRE_ACTIVATIONS, SUMS, ['backbone:pre']])
def test_features_are_read_in_front_of_the_activation(taps):
    model = distill(dict(match(), taps=taps))
    reading = model.teachers[0](model.data_preprocessor(batch())['inputs'], None)
    assert all((reading[tap][0] < 0).any() for tap in taps)
    assert sum(name.startswith('wide.loss') for name in losses_of(model, batch())) == len(taps)


def test_margins_are_told_by_the_very_normalisation_that_is_tapped():
    model = distill(dict(type='OFD', taps=PRE_ACTIVATIONS), batch_statistics=True)
    [objective] = model.objectives.values()
    assert isinstance(objective, OFD) and objective.images_wanted == 0
    teachers = model.teachers[0].model
    for margin, tap in zip(objective.margins, PRE_ACTIVATIONS):
        norm = teachers.get_submodule(tap)
        # beta 0, gamma 1: minus the mean of a half-normal variable.
        assert not margin.is_estimated and margin.value.shape == norm.weight.shape
        assert torch.allclose(margin.value, torch.full_like(norm.weight, -math.sqrt(2 / math.pi)))
    assert losses_of(model, batch())['wide.loss_2'] > 0


def test_mixed_paths_run_through_it():
    model = distill(dict(type='FCFD', taps=[*SUMS[:2], 'backbone.bn1'], output='head.fc'))
    assert not any(len(bridge) == 3 for bridge in model.objectives['wide'].to_teacher)
    losses = losses_of(model, batch())
    assert losses['wide.loss_function'] > 0 and losses['wide.loss_appearance'] > 0
