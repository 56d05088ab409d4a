"""Suggested weights give the wished ratio, under the keys that a config has."""
import argparse
import os
from collections import OrderedDict

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmfeatdistill.checks.loss_balance import (
    LossMeasurement,
    gradient_ratios,
    loss_weights,
    measure_losses,
    suggest_weights,
)
from mmfeatdistill.engine.command_line import configure_training
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.zoo.configs import load_config
from tests.conftest import load_script
from tests.helpers.models import classification_batch, classifier, distiller, match, teacher
from tests.helpers.runs import CONFIGS, DISTILLED, STUDENTS, small

KEYS = {
    'channel_mlp/channel-mlp_faster-rcnn_r18-w8_fpn_digits.py': {'fpn.loss.loss_weight': 1e-4},
    'ofd/ofd_faster-rcnn_r18-w8_fpn_digits.py': {'fpn.loss_weight': 3e-4},
    'lsh/lsh_faster-rcnn_r18-w8_fpn_digits.py': {'box.loss_weight': 2},
    'dkd/dkd_resnet18-w8_digits.py': {'logits.loss_weight': 0.1},
    'fcfd/fcfd_resnet18-w8_digits.py': {'kd.loss.loss_weight': 1, 'fcfd.appearance_weight': 5,
                                        'fcfd.function_weight': 1},
    'fcfd/fcfd_faster-rcnn_r18-w8_fpn_digits.py': {'fcfd.appearance_weight': 1, 'fcfd.class_weight': 1,
                                                   'fcfd.box_weight': 1}}
LOGGED = dict(FCFD=['loss_appearance', 'loss_function'], FCFDBoxHead=['loss_appearance', 'loss_class', 'loss_box'])


@pytest.mark.parametrize('path', KEYS)
def test_the_keys_of_a_config(path):
    objectives = Config.fromfile(CONFIGS / path).model.objectives
    found = {weight.key: weight.value for name, cfg in objectives.items()
             for weight in loss_weights(cfg, name, LOGGED.get(cfg.type, ['loss_0', 'loss_1']))}
    assert found == KEYS[path]


def still(tmp_path, path=DISTILLED['classification'], **options):
    """A training in which nothing is learned, so that losses are proportional to their weights."""
    cfg = small(path, tmp_path / 'user', **{'train_dataloader__num_workers': 0,
                                            'optim_wrapper__optimizer__lr': 0.0} | options)
    return cfg


def test_what_is_suggested_gives_the_ratio(in_digits, tmp_path):
    cfg = still(tmp_path)
    before, listed = cfg.pretty_text, sorted(os.listdir())
    measured = measure_losses(cfg, 2)
    [suggestion] = suggest_weights(cfg, measured, 0.25)
    [now], [new] = suggestion.now, suggestion.suggested
    assert now == ('model.objectives.stage4.loss.loss_weight', 1e-2) and not suggestion.problem
    assert suggestion.ratio == pytest.approx(suggestion.loss / measured.task)
    assert cfg.pretty_text == before, 'the config is not changed'
    assert sorted(os.listdir()) == listed and not (tmp_path / 'user').exists(), 'nothing is written'
    cfg.merge_from_dict({new.key: new.value})
    again = measure_losses(cfg, 2)
    [balanced] = suggest_weights(cfg, again)
    assert balanced.ratio == pytest.approx(0.25, rel=0.03)
    scale = new.value / now.value
    assert balanced.gradient_ratio == pytest.approx(scale * suggestion.gradient_ratio, rel=0.01)


def test_the_visualizer_of_the_training_to_come_is_left_alone(in_digits, tmp_path, monkeypatch):
    from mmseg.visualization import SegLocalVisualizer
    monkeypatch.setattr(SegLocalVisualizer, '_instance_dict', OrderedDict())
    cfg = still(tmp_path, DISTILLED['pspnet'], train_dataloader__batch_size=2)
    assert cfg.visualizer.name == 'visualizer'  # as in all stock configs of mmdet and mmseg
    measure_losses(cfg, 2)
    assert measure_losses(cfg, 2).task > 0
    assert not SegLocalVisualizer.check_instance_created('visualizer')


def test_factors_of_a_schedule_do_not_count(in_digits, tmp_path):
    def measured(**schedule):
        cfg = still(tmp_path)
        if schedule:
            cfg.custom_hooks.append(dict(type='mmfeatdistill.ObjectiveScheduleHook', objective='stage4', **schedule))
        return measure_losses(cfg, 2)

    plain, warming = measured(), measured(warmup=20, by_epoch=False)
    assert warming.losses['stage4']['loss_0'] == pytest.approx(plain.losses['stage4']['loss_0'], rel=1e-5)
    assert warming.gradients['stage4'] == pytest.approx(plain.gradients['stage4'] / 10, rel=1e-4)
    off = measured(stop=0)
    [suggestion] = suggest_weights(still(tmp_path), off)
    assert 'a schedule keeps it off' in suggestion.problem and suggestion.suggested == ()


def test_several_weights_of_an_objective_keep_their_balance():
    cfg = Config(dict(model=dict(objectives=dict(fcfd=dict(type='FCFD', appearance_weight=5.0, function_weight=0.5)))))
    measured = LossMeasurement(3.0, dict(fcfd=dict(loss_appearance=1.0, loss_function=0.5)), {}, 8)
    [suggestion] = suggest_weights(cfg, measured, 2.0)
    assert [weight.value for weight in suggestion.suggested] == [20.0, 2.0]
    assert suggestion.ratio == 0.5 and suggestion.gradient_ratio is None


def test_what_cannot_be_weighed_is_said():
    cfg = Config(dict(model=dict(objectives=dict(
        dead=dict(type='OFD'), broken=dict(type='OFD'),
        stubborn=dict(type='FeatureMatch', loss=dict(type=torch.nn.MSELoss))))))
    measured = LossMeasurement(1.0, dict(dead=dict(loss_0=0.0), broken=dict(loss_0=float('nan')),
                                         stubborn=dict(loss_0=1.0)), {}, 8)
    problems = [suggestion.problem for suggestion in suggest_weights(cfg, measured)]
    assert 'have to be positive' in problems[0] and 'not finite' in problems[1] and 'no option' in problems[2]


def test_gradients_are_compared_where_the_objective_reaches():
    model = distiller(classifier(), teacher(classifier(16)), dict(stage2=match('backbone.layer2'))).train()
    batch = classification_batch()
    ratio = gradient_ratios(model, batch)['stage2']
    assert all(parameter.grad is None for parameter in model.parameters())
    data = model.data_preprocessor(batch, True)
    norms = []
    for wanted in (True, False):
        model.zero_grad()
        losses = model(**data, mode='loss')
        sum(value for name, value in losses.items() if name.startswith('stage2.') is wanted).backward()
        reached = [parameter.grad for name, parameter in model.named_parameters()
                   if name.startswith(('backbone.conv1', 'backbone.bn1', 'backbone.layer1', 'backbone.layer2'))]
        norms.append(torch.cat([grad.flatten() for grad in reached]).norm())
    assert ratio == pytest.approx(float(norms[0] / norms[1]), rel=1e-4)


def test_the_command(in_digits, tmp_path, capsys):
    still(tmp_path, auto_scale_lr=dict(base_batch_size=16)).dump(tmp_path / 'distill.py')
    tool = load_script('tools/balance_losses.py')
    assert tool.main([str(tmp_path / 'distill.py'), '--iterations', '2', '--ratio', '0.5']) == 0
    printed = capsys.readouterr().out
    assert '--cfg-options model.objectives.stage4.loss.loss_weight=' in printed
    assert 'a batch of 16' in printed and 'multiplies it by 0.5' in printed


def test_a_training_that_ends_early_is_an_error(in_digits, tmp_path):
    with pytest.raises(ConfigError, match='ended after 2 iterations; 8 were to be measured'):
        measure_losses(still(tmp_path, train_cfg__max_epochs=1, train_dataloader__num_batch_per_epoch=2), 8)


def test_what_is_not_distilled_cannot_be_measured(in_digits, tmp_path):
    with pytest.raises(ConfigError, match="model: .* is no distillation config: expected .* got 'ImageClassifier'"):
        measure_losses(small(STUDENTS['classification'], tmp_path), 2)
    with pytest.raises(ValueError, match='iterations: expected at least 2, got 1'):
        measure_losses(still(tmp_path), 1)


@HOOKS.register_module()
class StopBeforeTraining(Hook):
    """Ends a training when its optimizer and schedules are there."""

    def before_train(self, runner):
        raise InterruptedError


# Where each library's stock configs say for which batch their learning rate is.
STOCK = dict(
    classification=('mmpretrain::resnet/resnet18_8xb32_in1k.py', 256),
    faster_rcnn=('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 16),
    pspnet=('mmseg::mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py', 16))


def arguments(path, tmp_path, **options):
    return argparse.Namespace(**dict(dict(
        config=str(path), work_dir=str(tmp_path), cfg_options=None, launcher='none', local_rank=0, amp=False,
        auto_scale_lr=False, resume=None, check_teacher=None, student_alone=None), **options))


@pytest.mark.parametrize('task', STOCK)
def test_the_learning_rate_is_scaled_to_the_batch(in_digits, tmp_path, task):
    stock, base = STOCK[task]
    cfg = small(DISTILLED[task], tmp_path, auto_scale_lr=load_config(stock).auto_scale_lr.to_dict(),
                train_dataloader__num_workers=0)
    cfg.custom_hooks.append(dict(type='StopBeforeTraining'))
    cfg.dump(tmp_path / 'distill.py')
    runner = Runner.from_cfg(configure_training(arguments(tmp_path / 'distill.py', tmp_path, auto_scale_lr=True)))
    with pytest.raises(InterruptedError):
        runner.train()
    scaled = cfg.optim_wrapper.optimizer.lr * 8 / base
    assert [*{group['initial_lr'] for group in runner.optim_wrapper.param_groups}] == [pytest.approx(scaled)]
    # The connectors learn with the student.
    added = {id(parameter) for name, parameter in runner.model.named_parameters() if name.startswith('distiller.')}
    assert added and added <= {id(p) for group in runner.optim_wrapper.param_groups for p in group['params']}


def test_options_of_training_that_do_not_apply(tmp_path):
    distilled, alone = CONFIGS / DISTILLED['pspnet'], CONFIGS / 'digits/pspnet_r18-w8-d8_digits.py'
    with pytest.raises(ValueError, match='--cfg-options auto_scale_lr.base_batch_size=8'):
        configure_training(arguments(distilled, tmp_path, auto_scale_lr=True))
    assert configure_training(arguments(distilled, tmp_path, auto_scale_lr=True, cfg_options={
        'auto_scale_lr.base_batch_size': 8})).auto_scale_lr == dict(base_batch_size=8, enable=True)
    with pytest.raises(ValueError, match='--check-teacher: the config has no teacher'):
        configure_training(arguments(alone, tmp_path, check_teacher=50))
    cfg = configure_training(arguments(distilled, tmp_path, check_teacher=50))
    others = len(Config.fromfile(distilled).custom_hooks)
    assert cfg.custom_hooks[0] == dict(type='mmfeatdistill.TeacherCheckHook', images=50)
    assert len(cfg.custom_hooks) == 1 + others
    with pytest.raises(ValueError, match='--student-alone: the config is no distillation'):
        configure_training(arguments(alone, tmp_path, student_alone=str(tmp_path)))
    cfg = configure_training(arguments(distilled, tmp_path, student_alone='alone'))
    assert cfg.custom_hooks[-1] == dict(type='mmfeatdistill.ReportHook', student_alone='alone')
    assert len(cfg.custom_hooks) == others
