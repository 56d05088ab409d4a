"""OFD: margins found and estimated, the loss as the authors have it, and what a training must keep."""
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmfeatdistill.distillers import FeatureDistiller
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.losses import overhaul_margin
from mmfeatdistill.objectives import OFD
from mmfeatdistill.taps.reader import TappedPass, TapReader
from mmfeatdistill.zoo.configs import build_model
from tests.helpers.models import (
    build,
    classification_batch,
    classifier,
    detection_batch,
    detector,
    distiller,
    losses_of,
    segmenter,
    stock,
    teacher,
    total,
    transformer,
)
from tests.helpers.runs import small, train

KEY = 'model.objectives.ofd'
STAGES = [f'backbone.layer{stage}:pre' for stage in (1, 2, 3, 4)]
IDENTITY = dict(type='Identity')


def bottleneck(kind: str = 'ResNet'):
    model = stock('mmpretrain::_base_/models/resnet50.py')
    model.data_preprocessor = classifier().data_preprocessor
    model.backbone.update(type=kind, stem_channels=16, base_channels=16)
    model['head'].update(num_classes=10, in_channels=512, topk=(1,))
    return model


def squeeze_and_excitation():
    return bottleneck('SEResNet')


def wide_segmenter():
    return segmenter(16)


def wide_detector():
    return detector(16, 32)


def ofd(taps=STAGES, **options):
    return dict(ofd=dict(type='OFD', taps=taps, **options))


def with_random_norms(cfg, folder, **options):
    """A teacher whose normalizations tell something."""
    model = build(cfg)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    torch.save(dict(state_dict=model.state_dict()), folder / 'teacher.pth')
    return teacher(cfg, **options) | dict(checkpoint=str(folder / 'teacher.pth'))


def readings(*features):
    """Features as if they had been read from a network, of whose normalizations nothing is known."""
    network = nn.Sequential(nn.ReLU())
    return TappedPass({'0': list(features)}, TapReader(network, ['0'], 'network'), features[0])


def prepared(*shapes, teachers=1, **options):
    """An objective on features of these shapes, with unit weight and the identity for a connector."""
    objective = OFD(['0'], **dict(connector=IDENTITY, loss_weight=1) | options)
    features = readings(*(torch.randn(shape) for shape in shapes))
    objective.prepare(features, [features] * teachers, KEY)
    return objective


def with_margins(objective, *values):
    for margin, value in zip(objective.margins, values):
        margin.value.copy_(torch.as_tensor(value))
    return objective


# --- the loss of the authors -----------------------------------------------------------------


@pytest.fixture(scope='module')
def golden():
    with np.load(Path(__file__).parents[1] / 'data' / 'golden' / 'ofd.npz') as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.mark.parametrize('name, weight', [('imagenet_loss', 1e-4), ('cifar_loss', 1e-3)])
def test_the_authors_loss_and_gradients(golden, name, weight):
    sources = [golden[f's{i}_source'].clone().requires_grad_() for i in range(4)]
    objective = prepared(*((1, *source.shape[1:]) for source in sources), loss_weight=weight)
    with_margins(objective, *(golden[f's{i}_margin'].flatten() for i in range(4)))
    losses = objective(readings(*sources), [readings(*(golden[f's{i}_target'] for i in range(4)))])
    assert list(losses) == ['loss_0', 'loss_1', 'loss_2', 'loss_3']
    loss = sum(losses.values())
    assert loss.item() == pytest.approx(golden[name].item(), rel=1e-6)
    loss.backward()
    for i, source in enumerate(sources):
        expected = golden[f's{i}_grad_source'] * (weight / 3 / 2 ** (3 - i))
        torch.testing.assert_close(source.grad, expected, rtol=1e-5, atol=1e-10)


def test_imagenets_weight_is_the_default():
    objective, features = OFD(['0'], connector=IDENTITY), readings(torch.randn(1, 2, 3, 3))
    objective.prepare(features, [features], KEY)
    assert objective.loss.loss_weight == 1e-4


def test_weights_of_the_stages():
    shape, ones, zeros = (1, 1, 2, 2), torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)

    def losses(**options):
        objective = with_margins(prepared(*[shape] * 3, **options), *[[0.0]] * 6)
        count = options.get('teachers', 1)
        return [value.item() for value in objective(readings(*[ones] * 3), [readings(*[zeros] * 3)] * count).values()]

    assert losses() == [1, 2, 4], 'each doubles that before it, and the last one counts fully'
    assert losses(teachers=2) == [1, 2, 4] * 2, 'each teacher has a last one'
    assert losses(stage_weights=[1 / 8, 0, 1]) == [0.5, 0, 4]
    assert losses(stage_weights=(1 / 8, 0, 1), teachers=2, loss_weight=10) == [5, 0, 40] * 2


def test_it_is_zero_where_the_student_is_the_teacher():
    feature, margin = torch.randn(2, 3, 4, 4), torch.tensor([-0.5, -0.1, 0.0])
    objective = with_margins(prepared((1, 3, 4, 4)), margin)
    for student in (feature, torch.maximum(feature, margin.view(3, 1, 1))):
        student = student.clone().requires_grad_()
        loss = objective(readings(student), [readings(feature)])['loss_0']
        loss.backward()
        assert loss == 0 and not student.grad.any()
    assert objective(readings(feature + 1e-3), [readings(feature)])['loss_0'] > 0


def test_gradients_in_float64():
    objective = prepared((1, 3, 4, 4), connector=None).double()
    with_margins(objective, [-0.5, -0.1, 0.0])
    target = readings(torch.randn(2, 3, 6, 5, dtype=torch.float64))
    student = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = objective.connectors[0][0].weight

    def loss(student, weight):
        return objective(readings(student), [target])['loss_0']

    assert torch.autograd.gradcheck(loss, (student, weight))


# --- margins that a normalization tells ------------------------------------------------------


@pytest.mark.parametrize('make, norms', [
    (classifier, ['layer1.1.bn2', 'layer2.1.bn2', 'layer3.1.bn2', 'layer4.1.bn2']),
    (bottleneck, ['layer1.2.bn3', 'layer2.3.bn3', 'layer3.5.bn3', 'layer4.2.bn3']),
    (squeeze_and_excitation, ['layer1.2.bn3', 'layer2.3.bn3', 'layer3.5.bn3', 'layer4.2.bn3']),
    (wide_detector, ['layer1.1.bn2', 'layer2.1.bn2', 'layer3.1.bn2', 'layer4.1.bn2']),
    (wide_segmenter, ['layer1.1.bn2', 'layer2.1.bn2', 'layer3.1.bn2', 'layer4.1.bn2']),
])
def test_margins_at_the_ends_of_stages(tmp_path, make, norms):
    model = distiller(classifier(), with_random_norms(make(), tmp_path), ofd())
    backbone = model.teachers[0].model.backbone
    margins = model.objectives['ofd'].margins
    assert len(margins) == 4 and model.objectives['ofd'].images_wanted == 0
    for margin, name in zip(margins, norms):
        norm = backbone.get_submodule(name)
        assert margin.value.unique().numel() >= 8, 'a channel has a margin of its own'
        assert torch.equal(margin.value, overhaul_margin(norm.weight, norm.bias))
    assert not any('margins' in name for name in model.state_dict()), 'they belong to the teacher'
    assert total(model.train(), classification_batch()).isfinite()


@pytest.mark.parametrize('tap, norm', [
    ('backbone.stem.5:in', 'backbone.stem.4'),
    ('backbone.layer2.0.bn1', 'backbone.layer2.0.bn1'),
    ('backbone.layer2.0:pre', 'backbone.layer2.0.bn2'),  # whose shortcut has a normalization too
    ('decode_head.convs.1:pre', 'decode_head.convs.1.bn'),
    ('backbone.layer2.0.conv1', None),
    ('decode_head.conv_seg', None),
])
def test_margins_anywhere(tmp_path, tap, norm):
    model = distiller(classifier(), with_random_norms(wide_segmenter(), tmp_path),
                      ofd([dict(student='backbone.layer1:pre', teacher=tap)]))
    objective = model.objectives['ofd']
    assert (objective.images_wanted > 0) == (norm is None)
    if norm is not None:
        found = model.teachers[0].model.get_submodule(norm)
        assert torch.equal(objective.margins[0].value, overhaul_margin(found.weight, found.bias))


def test_margins_of_some_levels_of_an_fpn_with_normalizations(tmp_path):
    cfg = wide_detector()
    cfg.neck.norm_cfg = dict(type='BN', requires_grad=True)
    model = distiller(detector(), with_random_norms(cfg, tmp_path), ofd(['neck[1:3]', STAGES[3]]))
    objective, network = model.objectives['ofd'], model.teachers[0].model
    assert objective.stage_weights == [0.25, 0.5, 1]
    for margin, name in zip(objective.margins, ('neck.fpn_convs.1.bn', 'neck.fpn_convs.2.bn', 'backbone.layer4.1.bn2')):
        norm = network.get_submodule(name)
        assert torch.equal(margin.value, overhaul_margin(norm.weight, norm.bias))


# --- margins that are estimated --------------------------------------------------------------


def fpn(**options):
    """A detector whose FPN has no normalization."""
    return distiller(objectives=ofd(['neck'], **options))


def observed(model, *batches):
    names = model.images_wanted()
    for batch in batches:
        data = model.data_preprocessor(batch, training=True)
        model.update_statistics(data['inputs'], data['data_samples'], names)
    model.finish_statistics(names)
    return model


def test_an_fpn_is_estimated_from_images():
    model, batches = fpn(margin_images=3), [detection_batch(), detection_batch((64, 64))]
    assert model.objectives['ofd'].images_wanted == 3
    observed(model, *batches)
    assert model.objectives['ofd'].images_wanted == 0
    network = model.teachers[0].model
    with torch.no_grad():
        levels = [network.extract_feat(model.data_preprocessor(batch, training=True)['inputs']) for batch in batches]
    for level, margin in enumerate(model.objectives['ofd'].margins):
        values = [feature[level].double().transpose(0, 1).flatten(1) for feature in levels]
        for channel, found in enumerate(margin.value):
            seen = torch.cat([value[channel] for value in values])
            negative = seen[seen < 0]
            assert found.item() == pytest.approx(negative.mean().item() if len(negative) else 0.0, rel=1e-6)
    assert total(model.train(), batches[0]).isfinite()


def test_a_channel_that_was_never_negative_has_no_margin():
    objective = prepared((1, 2, 2, 1))
    objective.update_statistics([readings(torch.tensor([[[[1.0], [2.0]], [[-1.0], [0.0]]]]))])
    objective.update_statistics([readings(torch.tensor([[[[0.0], [2.0]], [[-4.0], [math.nan]]]]))])
    objective.finish_statistics()
    assert objective.margins[0].value.tolist() == [0.0, -2.5]
    assert objective.images_wanted == 0


def test_small_values_are_not_lost_in_large_sums():
    objective = prepared((1, 1, 1, 1))
    for value in (-2.0 ** 24, *[-1.0] * 7):  # in float32, 2^24 + 1 is 2^24
        objective.update_statistics([readings(torch.full((1, 1, 1, 1), value))])
    objective.double().finish_statistics()
    assert objective.margins[0].value.item() == -(2 ** 24 + 7) / 8


def test_processes_share_what_they_have_seen(monkeypatch):
    """Each sees a share, of another size; one sees nothing."""
    feature = torch.randn(5, 3, 4, 4)
    shares = [feature[:1], feature[1:], feature[:0]]
    objectives = [prepared((1, 3, 4, 4)) for _ in shares]
    for objective, share in zip(objectives, shares):
        if len(share):
            objective.update_statistics([readings(share)])
    seen = sum(objective.margins[0]._sums.clone() for objective in objectives)
    monkeypatch.setattr('mmfeatdistill.objectives.ofd.all_reduce', lambda sums: sums.copy_(seen))
    for objective in objectives:
        objective.finish_statistics()
    alone = prepared((1, 3, 4, 4))
    alone.update_statistics([readings(feature)])
    monkeypatch.undo()
    alone.finish_statistics()
    for objective in objectives:
        torch.testing.assert_close(objective.margins[0].value, alone.margins[0].value)
        assert torch.equal(objective.margins[0].value, objectives[0].margins[0].value)


@pytest.mark.parametrize('make, tap, shape', [(transformer, 'backbone.layers.0', (16,)), (classifier, 'neck', (64,))],
                         ids=['tokens', 'vectors'])
def test_tokens_and_vectors(make, tap, shape):
    model = distiller(make(), teacher(make()), ofd([tap]))
    margin = observed(model, classification_batch()).objectives['ofd'].margins[0]
    assert margin.is_estimated and margin.value.shape == shape
    assert (margin.value < 0).any() == (tap != 'neck'), 'what is pooled after a ReLU is not negative'
    assert total(model.train(), classification_batch()).isfinite()


def test_both_kinds_in_one_objective():
    taps = [STAGES[3], 'neck[0]']
    model = distiller(objectives=ofd(taps))
    told, estimated = model.objectives['ofd'].margins
    before = told.value.clone()
    observed(model, detection_batch())
    assert not told.is_estimated and torch.equal(told.value, before)
    assert estimated.is_estimated and (estimated.value < 0).all()


def test_without_an_estimate_no_training_begins():
    model = fpn().train()
    with pytest.raises(ConfigError) as error:
        losses_of(model, detection_batch())
    assert str(error.value).startswith(f'{KEY}: no batch normalization')
    assert "add dict(type='mmfeatdistill.StatisticsHook') to custom_hooks" in str(error.value)
    observed(model, detection_batch())
    assert total(model, detection_batch()).isfinite()


def test_estimates_are_saved_and_not_repeated():
    model, resumed = observed(fpn(), detection_batch()), fpn()
    saved = model.state_dict()
    assert sum('margins' in name for name in saved) == 5
    resumed.load_state_dict(saved)
    assert resumed.objectives['ofd'].images_wanted == 0
    for margin, expected in zip(resumed.objectives['ofd'].margins, model.objectives['ofd'].margins):
        assert torch.equal(margin.value, expected.value)
    assert total(resumed.train(), detection_batch()).isfinite()


def test_a_resumed_training_does_not_estimate_again(in_digits, tmp_path, monkeypatch):
    cfg = small('ofd/ofd_resnet18-w8_digits.py', tmp_path, train_cfg__max_epochs=1)
    objective = next(iter(cfg.model.objectives.values()))
    objective.update(taps=['backbone.layer4.1.conv2'], margin_images=12)
    seen = []
    monkeypatch.setattr(OFD, 'update_statistics', lambda self, teachers, observe=OFD.update_statistics: (
        seen.append(len(teachers[0].inputs)), observe(self, teachers)))
    margins = [next(iter(train(cfg).model.objectives.values())).margins[0].value]
    assert sum(seen) == 12 and (margins[0] < 0).any()
    cfg.merge_from_dict({'train_cfg.max_epochs': 2, 'resume': True, 'randomness.seed': 2})
    margins.append(next(iter(train(cfg).model.objectives.values())).margins[0].value)
    assert sum(seen) == 12 and torch.equal(*margins), 'though the teacher has other random weights now'


# --- training --------------------------------------------------------------------------------


def pair(**options):
    return distiller(classifier(), teacher(classifier(16), **options), ofd(loss_weight=1))


def test_gradients_reach_the_student_and_the_connectors():
    model = pair().train()
    losses = losses_of(model, classification_batch())
    sum(value for name, value in losses.items() if name.startswith('ofd.')).backward()
    own = {name: parameter for name, parameter in model.named_parameters() if not name.startswith('head.')}
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in own.values()
               if parameter.dim() > 1)
    assert all(parameter.grad is None for parameter in model.teachers[0].model.parameters())
    assert sum(name.startswith('distiller.0.connectors') for name in own) == 12


def test_a_batch_of_one():
    assert total(pair().train(), classification_batch((64, 64))).isfinite()


def test_mixed_precision_compares_in_float32():
    torch.manual_seed(0)
    model, batch = pair().train(), classification_batch()
    expected = losses_of(model, batch)
    with torch.autocast('cpu', torch.bfloat16):
        found = losses_of(model, batch)
    for name in (name for name in found if name.startswith('ofd.')):
        assert found[name].dtype == torch.float32
        assert found[name].item() == pytest.approx(expected[name].item(), rel=0.02)


def test_another_size_of_map():
    cfg = classifier(16)
    cfg.backbone.strides = (1, 2, 2, 1)
    assert total(distiller(classifier(), teacher(cfg), ofd()).train(), classification_batch()).isfinite()


def test_alignment_metrics_hear_the_compared_pairs():
    model, heard = pair().train(), []
    model.objectives['ofd'].loss.register_forward_hook(lambda module, args, output: heard.append(args))
    losses_of(model, classification_batch())
    assert [[feature.shape[1] for feature in args] for args in heard] == [[16] * 2, [32] * 2, [64] * 2, [128] * 2]
    assert all((feature < 0).any() for args in heard for feature in args), 'pre-activations'


def test_a_teacher_by_batch_statistics_is_left_as_it_was(in_digits, tmp_path):
    cfg = small('ofd/ofd_resnet18-w8_digits.py', tmp_path, train_cfg__max_epochs=1,
                model__teacher__batch_statistics=True)
    torch.manual_seed(1)
    fresh = FeatureDistiller(**{name: value for name, value in cfg.model.items() if name != 'type'},
                             data_preprocessor=cfg.data_preprocessor).teachers[0].model
    torch.save(dict(state_dict=fresh.state_dict()), tmp_path / 'teacher.pth')
    cfg.model.teacher.checkpoint = str(tmp_path / 'teacher.pth')
    network = train(cfg).model.teachers[0].model
    for name, value in network.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['state_dict']
    student = build_model(small('digits/resnet18-w8_digits.py', tmp_path))
    assert saved.keys() == student.state_dict().keys()


def test_batch_statistics_change_the_targets():
    torch.manual_seed(0)
    expected = losses_of(pair().train(), classification_batch())
    torch.manual_seed(0)
    found = losses_of(pair(batch_statistics=True).train(), classification_batch())
    assert found['ofd.loss_3'] != expected['ofd.loss_3']


# --- configs ---------------------------------------------------------------------------------


@pytest.mark.parametrize('options, message', [
    (dict(stage_weights=[1, 2]), f'{KEY}.stage_weights: expected 4 numbers, one for each matched feature, got 2'),
    (dict(stage_weights=3), f'{KEY}: stage_weights: expected a list of numbers, one for each feature, got 3'),
    (dict(stage_weights='1111'), f"{KEY}: stage_weights: expected a list of numbers, one for each feature, got '1111'"),
    (dict(margin_images='many'), f"{KEY}: margin_images: expected a positive number, got 'many'"),
    (dict(margin_images=0), f'{KEY}: margin_images: expected a positive number, got 0'),
    (dict(connector=IDENTITY), f"{KEY}.connector: .*use connector=dict\\(type='Conv1x1'\\)"),
    (dict(loss=dict(type='SquaredError')), f"{KEY}.loss: there is no such option"),
])
def test_wrong_configs(options, message):
    with pytest.raises(ConfigError, match=f'^{message}'):
        distiller(classifier(), teacher(classifier(16)), ofd(**options))
