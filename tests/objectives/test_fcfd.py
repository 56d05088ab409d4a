"""FCFD on stock networks: what is run, what is left alone, where the gradient goes."""
import copy
import random

import pytest
import torch
from mmengine.logging import MessageHub
from torch.nn.modules.batchnorm import _BatchNorm

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.losses import appearance, kl_divergence
from mmfeatdistill.objectives.fcfd import MixedPath
from tests.helpers.models import (
    BN,
    classification_batch,
    classifier,
    count_calls,
    distiller,
    losses_of,
    make_agree,
    segmentation_batch,
    segmenter,
    stock,
    teacher,
)

STAGES = [f'backbone.layer{stage}:pre' for stage in (1, 2, 3, 4)]
FOUR = [(64, 64)] * 4


def fcfd(**options):
    return dict(fcfd={'type': 'FCFD', 'taps': STAGES, 'output': 'head.fc', **options})


def classification(**options):
    model = distiller(classifier(), teacher(classifier(16)), fcfd(**options))
    model.init_weights()
    return model.train()


def only(model, *paths):
    """Has these paths drawn."""
    model.objectives['fcfd']._draw = lambda: list(paths)
    return model


def running_statistics(model):
    return {name: value.clone() for name, value in model.named_buffers()
            if ('running' in name or 'tracked' in name) and not name.startswith('distiller.')}


def test_the_loss_is_the_sum_of_its_parts():
    """Computed again by hand, with the mixed paths run by the stages themselves."""
    model = only(classification(appearance_weight=2.0, function_weight=3.0), MixedPath(1, True), MixedPath(2, False))
    student, mentor, objective = model.student, model.teachers[0].model, model.objectives['fcfd']
    batch = classification_batch(*FOUR)
    for_student, for_teacher = copy.deepcopy(student), copy.deepcopy(mentor)
    losses = losses_of(model, batch)

    def stage_ends(network, image, first=0, x=None):
        """Pre-activations after the stages from ``first`` on, and the logits."""
        ends, backbone = [], network.backbone
        if x is None:
            x = backbone.maxpool(backbone.relu(backbone.norm1(backbone.conv1(image))))
        for stage in range(first, 4):
            block = getattr(backbone, f'layer{stage + 1}')
            last = block[-1]
            caught = []
            handle = last.relu.register_forward_pre_hook(lambda _, args, caught=caught: caught.append(args[0].clone()))
            x = block(x)
            handle.remove()
            ends.append(caught[-1])
        return ends, network.head(network.neck((x,)))

    image = model.data_preprocessor(copy.deepcopy(batch), True)['inputs']
    own, _ = stage_ends(for_student, image)
    targets, logits = stage_ends(for_teacher, image)
    for norm in (module for module in for_teacher.modules() if isinstance(module, _BatchNorm)):
        norm.training = True
    bridged = [bridge(feature) for bridge, feature in zip(objective.to_teacher, own)]
    later, mixed_teacher = stage_ends(for_teacher, image, 2, bridged[1].relu())
    _, mixed_student = stage_ends(for_student, image, 3, objective.to_student[2](targets[2]).relu())
    expected_appearance = appearance(bridged, targets) + appearance(later, targets[2:])
    expected_function = sum(kl_divergence(mixed, logits, tau=4.0) for mixed in (mixed_teacher, mixed_student))
    torch.testing.assert_close(losses['fcfd.loss_appearance'], 2 * expected_appearance)
    torch.testing.assert_close(losses['fcfd.loss_function'], 3 * expected_function)


@pytest.mark.parametrize('path', [MixedPath(stage, ends) for stage in range(3) for ends in (True, False)])
def test_a_mixed_path_runs_nothing_earlier_and_leaves_no_trace(path):
    with_path, without = (only(classification(), *paths) for paths in ((path,), ()))
    without.load_state_dict(with_path.state_dict())
    batch = classification_batch(*FOUR)
    teacher_before = running_statistics(with_path.teachers[0].model)
    counted = {}
    for side, network in (('student', with_path.student), ('teacher', with_path.teachers[0].model)):
        counted[side] = [count_calls(network.backbone.conv1)] + [
            count_calls(getattr(network.backbone, f'layer{stage}')[0]) for stage in (1, 2, 3, 4)]
    losses_of(with_path, batch)
    losses_of(without, batch)
    ending = 'teacher' if path.ends_in_teacher else 'student'
    for side, calls in counted.items():
        again = [stage > path.stage for stage in range(-1, 4)] if side == ending else [False] * 5
        assert [len(of_stage) for of_stage in calls] == [1 + more for more in again]
    alone, mixed = running_statistics(without.student), running_statistics(with_path.student)
    assert all(torch.equal(value, mixed[name]) for name, value in alone.items())
    after = running_statistics(with_path.teachers[0].model)
    assert all(torch.equal(value, after[name]) for name, value in teacher_before.items())
    assert not any(module.training for module in with_path.teachers[0].model.modules())
    assert all(module.track_running_stats for module in with_path.student.modules() if isinstance(module, _BatchNorm))


def test_gradient_reaches_the_student_through_the_frozen_teacher():
    model = only(classification(appearance_weight=0.0), MixedPath(0, True))
    losses_of(model, classification_batch(*FOUR))['fcfd.loss_function'].backward()
    assert model.student.backbone.layer1[0].bn2.weight.grad.any()
    assert model.student.backbone.layer2[0].conv1.weight.grad is None
    assert model.objectives['fcfd'].to_teacher[0][0].weight.grad.any()
    assert all(parameter.grad is None for parameter in model.teachers[0].model.parameters())


def test_gradient_reaches_the_later_part_of_the_student():
    model = only(classification(appearance_weight=0.0), MixedPath(2, False))
    losses_of(model, classification_batch(*FOUR))['fcfd.loss_function'].backward()
    assert model.student.backbone.layer4[0].bn2.weight.grad.any() and model.student.head.fc.weight.grad.any()
    assert model.student.backbone.layer3[0].conv1.weight.grad is None
    assert model.objectives['fcfd'].to_student[2][0].weight.grad.any()


def test_paths_depend_on_the_iteration_alone():
    objective = classification().objectives['fcfd']
    hub = MessageHub.get_current_instance()
    draws = []
    for seed in (0, 1):
        random.seed(seed)
        drawn = []
        for iteration in range(40):
            hub.update_info('iter', iteration)
            drawn.append(objective._draw())
        draws.append(drawn)
    assert draws[0] == draws[1]
    assert {path for drawn in draws[0] for path in drawn} == set(objective._paths)
    assert all(len(set(drawn)) == 2 for drawn in draws[0])


def test_a_decode_head_is_the_later_part():
    model = distiller(segmenter(), teacher(segmenter(16)), fcfd(output='decode_head.conv_seg', tau=1.0))
    model.init_weights()
    model = only(model.train(), MixedPath(1, True), MixedPath(3, False))
    calls = [count_calls(network.decode_head.convs[0].conv) for network in (model.student, model.teachers[0].model)]
    losses = losses_of(model, segmentation_batch())
    assert [len(of_network) for of_network in calls] == [2, 2]
    model.parse_losses(losses)[0].backward()
    assert all(value.isfinite() for name, value in losses.items() if 'loss' in name)
    # No pooled term: a decode head reads positions.
    assert not model.objectives['fcfd']._pools
    assert len(model.objectives['fcfd']._paths) == 8


def architectures():
    wide = stock('mmpretrain::_base_/models/resnet50.py')
    wide.backbone.update(base_channels=16, stem_channels=16)
    wide['head'].update(in_channels=512)
    mobile = stock('mmpretrain::_base_/models/mobilenet_v2_1x.py')
    mobile.backbone.widen_factor = 0.25
    shuffle_v1 = stock('mmpretrain::_base_/models/shufflenet_v1_1x.py')
    shuffle_v2 = stock('mmpretrain::_base_/models/shufflenet_v2_1x.py')
    shuffle_v2.backbone.widen_factor = 0.5
    for model in (wide, mobile, shuffle_v1, shuffle_v2):
        model.data_preprocessor = classifier().data_preprocessor
        model['head'].update(num_classes=10, topk=(1,))
    return wide, {
        'mobilenet_v2': (mobile, ['backbone.layer2', 'backbone.layer3', 'backbone.layer5', 'backbone.layer7'], False),
        'shufflenet_v1': (shuffle_v1, [f'backbone.layers.{stage}' for stage in range(3)], True),
        'shufflenet_v2': (shuffle_v2, [f'backbone.layers.{stage}' for stage in range(3)], True)}


@pytest.mark.parametrize('name', ['mobilenet_v2', 'shufflenet_v1', 'shufflenet_v2'])
def test_other_families(name):
    wide, students = architectures()
    student, stages, activated = students[name]
    taps = [dict(student=s, teacher=t) for s, t in zip(stages, STAGES[-len(stages):])]
    model = distiller(student, teacher(wide), fcfd(taps=taps, paths=2 * len(stages) - 2))
    model.init_weights()
    losses = losses_of(model.train(), classification_batch(*FOUR))
    model.parse_losses(losses)[0].backward()
    assert losses['fcfd.loss_function'] > 0 and losses['fcfd.loss_function'].isfinite()
    assert all(parameter.grad is not None for bridge in model.objectives['fcfd'].to_student[:-1]
               for parameter in bridge.parameters())
    bridges = model.objectives['fcfd'].to_student
    assert all((len(bridge) == 3) == activated for bridge in bridges)


@pytest.mark.parametrize('suffix, activated', [(':pre', False), ('', True)])
def test_bridges_are_activated_where_the_target_is(suffix, activated):
    """Also where an in-place ReLU would overwrite what the dry run has read."""
    model = distiller(classifier(), teacher(classifier(16)), fcfd(taps=[f'backbone.layer{i}{suffix}' for i in (2, 3)]))
    assert model.student.backbone.layer2[0].relu.inplace
    for bridges in (model.objectives['fcfd'].to_student, model.objectives['fcfd'].to_teacher):
        assert all((len(bridge) == 3) == activated for bridge in bridges)


def test_several_teachers_need_a_choice():
    teachers = [teacher(classifier(16)), teacher(classifier(12))]
    with pytest.raises(ConfigError, match=r'model\.objectives\.fcfd\.teacher: there are 2 teachers; name one'):
        distiller(classifier(), teachers, fcfd())
    logits = dict(type='FeatureMatch', taps=['head.fc'], loss=dict(type='KLDivergence'), teacher=0)
    model = distiller(classifier(), teachers, dict(kd=logits, **fcfd(teacher=1)))
    assert losses_of(model, classification_batch(*FOUR))['fcfd.loss_function'].isfinite()


def test_a_head_that_reads_several_stages_is_refused():
    student = stock('mmseg::_base_/models/deeplabv3plus_r50-d8.py')
    student.update(pretrained=None, auxiliary_head=None)
    student.data_preprocessor.size = (64, 64)
    student.backbone.update(depth=18, stem_channels=8, base_channels=8, norm_cfg=BN)
    student.decode_head.update(in_channels=64, channels=8, c1_in_channels=8, c1_channels=4, norm_cfg=BN)
    with pytest.raises(ConfigError, match=r"fcfd\.taps: .* cannot be continued from 'backbone.layer4:pre' alone"):
        distiller(student, teacher(student), fcfd(taps=STAGES[-1:], output='decode_head.conv_seg'))


@pytest.mark.parametrize('options, words', [
    (dict(paths=7), 'fcfd.paths: 4 stage(s) give 6 mixed paths here, got 7'),
    (dict(taps=['backbone.layer9:pre']), "no module 'backbone.layer9'")])
def test_bad_options(options, words):
    with pytest.raises(ConfigError) as caught:
        distiller(classifier(), teacher(classifier(16)), fcfd(**options))
    assert words in str(caught.value)


def test_other_classes_are_refused():
    other = classifier(16)
    other['head'].num_classes = 12
    with pytest.raises(ConfigError, match=r'fcfd\.output: the student has 10 classes and the teacher 12'):
        distiller(classifier(), teacher(other), fcfd())


def test_bfloat16_and_a_batch_of_one():
    model = classification()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = losses_of(model, classification_batch(*FOUR))
    assert losses['fcfd.loss_appearance'].dtype == torch.float32 and losses['fcfd.loss_function'].isfinite()
    assert all(value.isfinite() for name, value in losses_of(model, classification_batch((64, 64))).items())


def test_networks_that_agree_have_no_loss():
    """The same weights and statistics on both sides, and bridges that change nothing."""
    model = distiller(classifier(16), teacher(classifier(16), batch_statistics=True), fcfd(paths=6))
    model.init_weights()
    model.train()
    make_agree(model)
    losses = losses_of(model, classification_batch(*FOUR))
    assert losses['fcfd.loss_appearance'] == 0
    assert losses['fcfd.loss_function'].abs() < 1e-5


def test_gradient_in_double_precision():
    """The slope along a random direction of the first layer, by autograd and by difference, through all mixed paths."""
    model = only(classification(), *(MixedPath(stage, ends) for stage in range(3) for ends in (True, False))).double()
    data = model.data_preprocessor(classification_batch(*FOUR), True)
    data['inputs'] = data['inputs'].double()
    weight = model.student.backbone.conv1.weight
    direction = torch.randn_like(weight)

    def loss():
        losses = model(**data, mode='loss')
        return losses['fcfd.loss_appearance'] + losses['fcfd.loss_function']

    (gradient,) = torch.autograd.grad(loss(), weight)
    values = []
    with torch.no_grad():
        # Small, as every ReLU on the way has a kink.
        for step in (1e-8, -2e-8):
            weight += step * direction
            values.append(loss())
    torch.testing.assert_close((gradient * direction).sum(), (values[0] - values[1]) / 2e-8, rtol=1e-5, atol=0)
