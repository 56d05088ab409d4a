"""FEED: an ensemble of teachers, each with a translator of its own, is a FeatureMatch over a list of teachers."""
import pytest
import torch
from torch import nn

from mmfeatdistill.objectives import FeatureMatch
from tests.helpers.models import (
    classification_batch,
    classifier,
    count_calls,
    detection_batch,
    detector,
    distiller,
    losses_of,
    teacher,
    total,
    transformer,
)
from tests.helpers.passes import tapped

WEIGHT = 1000.0
LOSS = dict(type='FactorTransfer', loss_weight=WEIGHT)


def feed(tap='backbone', **options):
    return dict(type='FeatureMatch', taps=[tap], connector=dict(type='Translator'), loss=LOSS, **options)


def ensemble(count, widths=(16, 12, 8)):
    return distiller(classifier(), [teacher(classifier(width)) for width in widths[:count]], dict(stage4=feed()))


def unit(feature):
    return feature.flatten(1) / feature.flatten(1).norm(dim=1, keepdim=True)


@pytest.mark.parametrize('count', [1, 2, 3])
def test_each_teacher_costs_one_forward_and_the_student_runs_once(count):
    model = ensemble(count)
    networks = [model, *(member.model for member in model.teachers)]
    calls = [count_calls(network.backbone.conv1) for network in networks]
    losses = losses_of(model, classification_batch())
    assert [len(of_network) for of_network in calls] == [1] * (1 + count)
    assert sorted(losses) == ['loss'] + [f'stage4.loss_{i}' for i in range(count)]


def test_all_networks_see_one_batch_and_no_copy_of_it():
    model = ensemble(3)
    seen = []
    for network in (model, *(member.model for member in model.teachers)):
        network.backbone.conv1.register_forward_pre_hook(lambda _, args: seen.append(args[0].data_ptr()))
    losses_of(model, classification_batch())
    assert len(seen) == 4 and len(set(seen)) == 1


def test_the_loss_is_the_sum_over_the_teachers_of_the_distances_of_unit_features():
    model = ensemble(3)
    features = []
    for connector in model.objectives['stage4'].connectors:
        connector.register_forward_hook(lambda _, args, out: features.append((args[0].detach(), out.detach())))
    targets = []
    for member in model.teachers:
        member.model.backbone.layer4.register_forward_hook(lambda _, args, out: targets.append(out.detach()))
    losses = losses_of(model, classification_batch())
    assert len(features) == len(targets) == 3
    assert all(torch.equal(student, features[0][0]) for student, _ in features)
    for i, ((_, translated), target) in enumerate(zip(features, targets)):
        expected = WEIGHT * (unit(translated) - unit(target)).abs().mean()
        torch.testing.assert_close(losses[f'stage4.loss_{i}'].detach(), expected)
    torch.testing.assert_close(model.parse_losses(losses)[0], sum(losses.values()))


def test_gradient_reaches_the_student_and_every_translator_and_no_teacher():
    model = ensemble(3)
    losses = losses_of(model, classification_batch())
    sum(value for name, value in losses.items() if name.startswith('stage4.')).backward()
    assert model.backbone.conv1.weight.grad.any()
    translators = model.objectives['stage4'].connectors
    assert len(translators) == 3
    for translator in translators:
        assert all(parameter.grad.any() for parameter in translator.parameters())
    for member in model.teachers:
        assert all(parameter.grad is None and not parameter.requires_grad for parameter in member.model.parameters())


def test_each_teacher_teaches_its_own_translator_only():
    model = ensemble(3)
    losses_of(model, classification_batch())['stage4.loss_1'].backward()
    first, second, third = (translator[0].weight.grad for translator in model.objectives['stage4'].connectors)
    assert first is None and third is None and second.any()


def test_features_of_one_direction_are_free_of_loss():
    target = tapped({'backbone': [torch.rand(1, 8, 4, 4)]})
    student = tapped({'backbone': [7 * target['backbone'][0]]})
    objective = FeatureMatch(taps=['backbone'], connector=dict(type='Translator'), loss=LOSS)
    objective.prepare(student, [target, target], 'model.objectives.stage4')
    for module in objective.connectors.modules():
        if isinstance(module, nn.Conv2d):  # hands positive features on as they are
            nn.init.dirac_(module.weight)
            nn.init.zeros_(module.bias)
    losses = objective(student, [target, target])
    assert len(losses) == 2 and all(value.item() == pytest.approx(0, abs=1e-4) for value in losses.values())
    other = {'backbone': [torch.rand(1, 8, 4, 4)]}
    losses = objective(student, [target, other])
    assert losses['loss_0'] < 1e-3 < 1 < losses['loss_1']


def test_teachers_of_different_libraries():
    """A detector learns from a detector of mmdet, and from a ResNet and a transformer of mmpretrain."""
    tokens = transformer()
    tokens.backbone.out_type = 'featmap'
    model = distiller(detector(), [teacher(detector(16, 32)), teacher(classifier(12)), teacher(tokens)], dict(
        detector=feed('backbone[-1]', teacher=0),
        resnet=feed(dict(student='backbone[-1]', teacher='backbone'), teacher=1),
        vit=feed(dict(student='backbone[2]', teacher='backbone'), teacher=2)))
    names = ['detector.loss_0', 'resnet.loss_0', 'vit.loss_0']
    losses = losses_of(model, detection_batch())
    assert [name for name in losses if '.' in name] == names
    assert [objective.connectors[0][2].out_channels for objective in model.objectives.values()] == [128, 96, 16]
    total(model, detection_batch()).backward()
    assert model.backbone.conv1.weight.grad.any()
    for objective in model.objectives.values():
        assert all(parameter.grad.any() for parameter in objective.parameters())
