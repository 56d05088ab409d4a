"""What teachers choose by themselves: by a rule, after a trial, and the same after resuming."""
from types import SimpleNamespace

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from mmfeatdistill.engine.hooks.acceleration_hook import AccelerationHook
from mmfeatdistill.teacher import teacher as teacher_module
from mmfeatdistill.teacher.automatic_acceleration import BATCHES, Trial
from mmfeatdistill.teacher.packed_convolutions import can_pack
from mmfeatdistill.teacher.teacher import Teacher
from tests.helpers.models import (
    build,
    classification_batch,
    classifier,
    detection_batch,
    detector,
    distiller,
    match,
    teacher,
)
from tests.helpers.runs import DISTILLED, small, train
from tests.teacher.test_acceleration import as_trained

SQUARE = classification_batch((64, 64), (64, 64))


def made(make=classifier, tap='backbone', start=True) -> Teacher:
    torch.manual_seed(0)
    result = Teacher(model=make(), checkpoint=None, student_preprocessor=build(make()).data_preprocessor)
    as_trained(result.model)
    result.accelerate(result.attach([tap]))
    if start:
        result.start_training()
    return result


def read(network, batch, tap='backbone'):
    data = network.model.data_preprocessor(batch, True)
    return network(data['inputs'], data['data_samples'])[tap]


def norms(network) -> int:
    return sum(isinstance(module, _BatchNorm) for module in network.model.modules())


def test_batches_of_one_size_have_weights_packed_and_features_as_they_were():
    network = made()
    first = read(network, SQUARE)
    for _ in range(BATCHES - 2):
        read(network, SQUARE)
    assert norms(network) and network.automatic.state()['chosen'] is None
    for given, expected in zip(read(network, SQUARE), first):
        assert given.is_contiguous() and not torch.equal(given, expected)
        assert (given - expected).abs().max() <= 1e-5 * expected.abs().max()
    chosen = network.automatic.state()['chosen']
    assert chosen == dict(fuse_conv_bn=True, channels_last=True,
                          **dict(packed_for=[2, 3, 64, 64]) if can_pack() else {})
    assert not norms(network)


def test_batches_of_several_sizes_have_none_packed():
    network = made(detector, 'neck')
    for number in range(BATCHES):
        read(network, detection_batch((64, 64), (64, 64)) if number else detection_batch((64, 96), (64, 64)), 'neck')
    assert network.automatic.state()['chosen'] == dict(fuse_conv_bn=True, channels_last=True)


@pytest.mark.parametrize('trial', [Trial(1e-3, 0.5, 1e-5), Trial(1e-7, 1.5, 1e-5), Trial(float('inf'), 0.5, 1e-5),
                                   Trial(failure='RuntimeError: no')])
def test_where_the_trial_goes_wrong_the_teacher_is_bit_for_bit_what_it_was(trial, monkeypatch):
    network = made()
    before = {name: value.clone() for name, value in network.model.state_dict().items()}
    first = read(network, SQUARE)
    monkeypatch.setattr(teacher_module, 'Trial', lambda *args, **options: trial)
    for _ in range(BATCHES):
        again = read(network, SQUARE)
    assert network.automatic.state()['chosen'] == {}
    assert {name: value.stride() for name, value in network.model.state_dict().items()} == {
        name: value.stride() for name, value in before.items()}
    assert all(torch.equal(value, before[name]) for name, value in network.model.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(first, again))


def test_options_under_which_it_does_not_run_are_left_out(monkeypatch):
    network = made()
    monkeypatch.setattr('mmfeatdistill.teacher.acceleration.fuse', lambda *_: 1 / 0)
    for _ in range(BATCHES + 1):
        read(network, SQUARE)
    assert network.automatic.state()['chosen'] == {} and norms(network)


def test_nothing_is_tried_outside_a_training_or_with_options_of_ones_own():
    network = made()
    plain = Teacher(model=classifier(), checkpoint=None, acceleration=None,
                    student_preprocessor=build(classifier()).data_preprocessor)
    assert plain.automatic is None and network.automatic is not None
    untrained = Teacher(model=classifier(), checkpoint=None,
                        student_preprocessor=build(classifier()).data_preprocessor)
    untrained.accelerate(untrained.attach(['backbone']))
    for _ in range(BATCHES + 1):
        read(untrained, SQUARE)
    assert norms(untrained)


def test_objectives_that_run_the_teacher_keep_it_plain():
    fcfd = dict(fcfd=dict(type='FCFDBoxHead', taps=['neck']))
    assert distiller(teachers=teacher(detector(16, 16)), objectives=fcfd).teachers[0].automatic is None
    assert distiller(teachers=teacher(detector(16, 16)), objectives=dict(fpn=match('neck'))).teachers[0].automatic


def test_it_is_moved_and_converted_as_any_other():
    network = made()
    for _ in range(BATCHES):
        given = read(network, SQUARE)
    network.apply_to_tensors(lambda tensor: tensor.clone())
    assert all(torch.equal(a, b) for a, b in zip(given, read(network, SQUARE)))
    network.apply_to_tensors(lambda tensor: tensor.double())
    assert next(network.model.parameters()).dtype == torch.float64


def test_a_teacher_that_was_moved_since_it_was_built_takes_what_was_chosen():
    """Another precision stands for another device: the image of the dry run is of neither."""
    network = made()
    for _ in range(BATCHES):
        read(network, SQUARE)
    resumed = Teacher(model=classifier(), checkpoint=None, student_preprocessor=build(classifier()).data_preprocessor)
    resumed.accelerate(resumed.attach(['backbone']))
    resumed.apply_to_tensors(lambda tensor: tensor.double())
    resumed.start_training(network.automatic.state())
    assert not norms(resumed)


def test_norms_are_folded_in_a_teacher_that_was_moved_since_it_was_built():
    network = made()
    network.apply_to_tensors(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for _ in range(BATCHES):
        network(images, None)
    assert network.automatic.state()['chosen'] == dict(fuse_conv_bn=True, channels_last=True) and not norms(network)


def test_a_training_that_was_resumed_without_a_choice_is_resumed_without_one_again():
    network = made(start=False)
    runner = SimpleNamespace(model=SimpleNamespace(teachers=[network]), _resume=True)
    hook, checkpoint = AccelerationHook(), {}
    for _ in range(2):
        hook.after_load_checkpoint(runner, checkpoint)
        hook.before_train(runner)
        checkpoint = {}
        hook.before_save_checkpoint(runner, checkpoint)
        assert checkpoint == {} and network.automatic.look(torch.zeros(1, 3, 64, 64)) is None


@pytest.mark.parametrize('interrupted_after', [1, 4])
def test_a_resumed_training_goes_on_with_the_same_choice(in_digits, interrupted_after, tmp_path):
    options = dict(train_dataloader__dataset__indices=16, train_dataloader__batch_size=8,
                   val_dataloader__dataset__indices=8, train_cfg__max_epochs=5)
    whole = train(small(DISTILLED['classification'], tmp_path / 'whole', **options))
    chosen = whole.model.teachers[0].automatic.state()['chosen']
    assert chosen['fuse_conv_bn']
    cfg = small(DISTILLED['classification'], tmp_path / 'parts', **options)
    cfg.resume, cfg.load_from = True, str(tmp_path / 'whole' / f'epoch_{interrupted_after}.pth')
    resumed = train(cfg)
    assert resumed.model.teachers[0].automatic.state()['chosen'] == chosen
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    meta = torch.load(tmp_path / 'parts' / 'epoch_5.pth', weights_only=False)['meta']
    assert meta['acceleration'][0]['chosen'] == chosen


def test_a_deterministic_training_has_a_plain_teacher(in_digits, tmp_path):
    try:
        runner = train(small(DISTILLED['classification'], tmp_path, train_dataloader__dataset__indices=40,
                             val_dataloader__dataset__indices=8, train_cfg__max_epochs=1,
                             randomness=dict(seed=0, deterministic=True)))
    finally:
        torch.use_deterministic_algorithms(False)
    assert norms(runner.model.teachers[0])
