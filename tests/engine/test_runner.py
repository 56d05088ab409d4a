"""Distillation inside real runners: checkpoints, resuming, and the student's own course."""
import os
from collections.abc import Callable

import pytest
import torch
from mmengine import registry as root
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, load_checkpoint

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.zoo.configs import build_model
from tests.helpers.runs import DISTILLED, STUDENTS, small, train

EMA = dict(type='EMAHook', momentum=0.1)


class Crash(Hook):
    """Ends a training in the middle of an epoch, as a killed process does."""

    def __init__(self, at: int) -> None:
        self.at = at

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.at:
            raise KeyboardInterrupt


def straight_and_resumed(config: Callable[[str], Config], crash_at: int) -> tuple[Runner, Runner]:
    """Trains once without interruption, and once with a crash before an iteration and a second start."""
    straight = train(config('straight'))
    interrupted = Runner.from_cfg(config('interrupted'))
    interrupted.register_hook(Crash(at=crash_at))
    with pytest.raises(KeyboardInterrupt):
        interrupted.train()
    cfg = config('interrupted')
    cfg.resume = True
    return straight, train(cfg)


def test_a_training_is_not_resumed_with_other_connectors(in_digits, tmp_path):
    cfg = small(DISTILLED['classification'], tmp_path, train_cfg__max_epochs=1)
    train(cfg)
    cfg = small(DISTILLED['classification'], tmp_path)
    [name] = cfg.model.objectives
    cfg.model.objectives[name].connector = dict(type='Conv1x1')
    cfg.resume = True
    with pytest.raises(ConfigError, match=rf"^resume: .* Of model.objectives.{name}, 'connectors.* has the shape .* "
                                          'or train from its student'):
        train(cfg)


def same_tensors(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize('task', ['classification', 'faster_rcnn', 'pspnet'])
def test_every_saved_file_is_the_students_own(in_digits, tmp_path, task):
    cfg = small(DISTILLED[task], tmp_path / 'distilled')
    cfg.custom_hooks.append(EMA)
    runner = train(cfg)
    files = sorted(tmp_path.glob('distilled/*.pth'))
    assert [file.name for file in files if not file.name.startswith('best')] == ['epoch_1.pth', 'epoch_2.pth']
    assert any(file.name.startswith('best') for file in files)

    student_cfg = small(STUDENTS[task], tmp_path / 'student')
    DefaultScope._instance_dict.clear()
    for file in files:
        student = build_model(student_cfg)
        load_checkpoint(student, str(file), strict=True)
        checkpoint = torch.load(file, weights_only=False)
        assert checkpoint['state_dict'].keys() == student.state_dict().keys()
        assert {key.removeprefix('module.') for key in checkpoint['ema_state_dict']} - {'steps'} == \
            set(student.state_dict())
    # What the training validated is what the stock config finds in the file, to the last digit.
    last = {name: buffer.current() for name, buffer in runner.message_hub.log_scalars.items()
            if name.startswith('val/') and not name.endswith('time')}
    student_cfg.load_from = str(tmp_path / 'distilled' / 'epoch_2.pth')
    found = Runner.from_cfg(student_cfg).test()
    assert last and {f'val/{name}': value for name, value in found.items() if not name.endswith('time')} == last


def test_files_are_written_whole(in_digits, tmp_path, monkeypatch):
    """A process that is killed while it saves leaves the checkpoints of before, and no broken one."""
    saved = []

    def killed(source, target, replace=os.replace):
        saved.append(target.name)
        if target.name == 'epoch_2.pth':
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, 'replace', killed)
    with pytest.raises(KeyboardInterrupt):
        train(small(DISTILLED['classification'], tmp_path))
    assert next(name for name in saved if name.endswith('.pth')) == 'epoch_1.pth' and saved[-1] == 'epoch_2.pth'
    assert [path.name for path in tmp_path.glob('*epoch_2*')] == []
    assert (tmp_path / 'last_checkpoint').read_text().endswith('epoch_1.pth')


@pytest.mark.parametrize('task, hooks', [('classification', []), ('classification', [EMA]), ('faster_rcnn', [])],
                         ids=['classification', 'ema', 'faster_rcnn'])
def test_resuming_ends_with_the_same_weights_bit_for_bit(in_digits, tmp_path, task, hooks):
    def config(name: str):
        cfg = small(DISTILLED[task], tmp_path / name, train_cfg__max_epochs=3)
        cfg.custom_hooks += hooks
        if task == 'classification':  # random augmentation in the data workers
            cfg.train_dataloader.dataset.pipeline.insert(1, dict(type='RandomCrop', crop_size=64, padding=8))
        return cfg

    straight, resumed = straight_and_resumed(config, crash_at=6)
    assert resumed.iter == straight.iter == 12
    assert same_tensors(straight.model.state_dict(), resumed.model.state_dict())
    if hooks:
        saved = [torch.load(tmp_path / name / 'epoch_3.pth', weights_only=False)
                 for name in ('straight', 'interrupted')]
        assert same_tensors(*(file['ema_state_dict'] for file in saved))
        assert same_tensors(*(file['distiller']['ema_state_dict'] for file in saved))


@root.TRANSFORMS.register_module()
class TorchNoise:
    """An augmentation that draws from torch, as torchvision's do."""

    def __call__(self, results):
        return dict(results, img=results['img'] + torch.rand(()).numpy())


@pytest.mark.parametrize('workers', [pytest.param(1, marks=pytest.mark.slow), 0])
def test_resuming_an_iteration_based_training_is_exact(in_digits, tmp_path, workers):
    """The loop of most segmentation schedules, with random augmentation where the data are loaded."""
    def config(name: str):
        cfg = small(DISTILLED['pspnet'], tmp_path / name, train_dataloader__num_workers=workers)
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=8, val_interval=2)
        cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
        cfg.train_dataloader.dataset.pipeline[2:2] = [dict(type='PhotoMetricDistortion'), dict(type='TorchNoise')]
        cfg.default_hooks.checkpoint.update(by_epoch=False, interval=3, save_best=None)
        cfg.default_hooks.logger.log_metric_by_epoch = False
        cfg.log_processor.by_epoch = False
        cfg.param_scheduler = [dict(type='PolyLR', by_epoch=False, begin=0, end=8)]
        return cfg

    straight, resumed = straight_and_resumed(config, crash_at=5)
    assert resumed.iter == 8 and same_tensors(straight.model.state_dict(), resumed.model.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize('exact', [True, False], ids=['exact', 'without the hook'])
def test_resuming_without_a_configured_seed_is_exact_thanks_to_the_hook(in_digits, tmp_path, exact):
    teacher = small('digits/faster-rcnn_r18-w32_fpn_digits.py', tmp_path)
    torch.save(dict(state_dict=build_model(teacher).state_dict()), tmp_path / 'teacher.pth')

    def config(name: str):
        cfg = small(DISTILLED['faster_rcnn'], tmp_path / name, train_cfg__max_epochs=2, randomness__seed=None,
                    model__teacher__checkpoint=str(tmp_path / 'teacher.pth'))
        cfg.custom_hooks = [hook for hook in cfg.custom_hooks if exact or 'ExactResume' not in hook.type]
        return cfg

    straight = train(config('straight'))
    cfg = config('resumed')
    cfg.update(resume=True, load_from=str(tmp_path / 'straight' / 'epoch_1.pth'))
    assert same_tensors(straight.model.state_dict(), train(cfg).model.state_dict()) == exact


@pytest.mark.parametrize('task', ['classification', 'faster_rcnn'])
def test_at_weight_zero_the_student_learns_as_it_would_alone(in_digits, tmp_path, task):
    distilled_cfg = small(DISTILLED[task], tmp_path / 'distilled', train_cfg__max_epochs=1)
    for objective in distilled_cfg.model.objectives.values():
        objective.loss.loss_weight = 0.0
    distilled = train(distilled_cfg).model
    alone_cfg = small(STUDENTS[task], tmp_path / 'alone', train_cfg__max_epochs=1)
    alone_cfg.custom_hooks = [dict(type='mmfeatdistill.ExactResumeHook')]
    alone = train(alone_cfg).model
    assert same_tensors(alone.state_dict(), {
        name: value for name, value in distilled.state_dict().items() if not name.startswith('distiller.')})


def test_resuming_without_the_hook_of_before_still_works(in_digits, tmp_path):
    cfg = small(DISTILLED['classification'], tmp_path / 'run', train_cfg__max_epochs=1)
    runner = Runner.from_cfg(cfg)
    runner._hooks = [hook for hook in runner.hooks if not type(hook).__module__.startswith('mmfeatdistill.')]
    runner.train()
    assert any(name.startswith('distiller.') for name in torch.load(
        tmp_path / 'run' / 'epoch_1.pth', weights_only=False)['state_dict'])
    cfg.merge_from_dict({'train_cfg.max_epochs': 2, 'resume': True})
    train(cfg)
    assert not any(name.startswith('distiller.') for name in torch.load(
        tmp_path / 'run' / 'epoch_2.pth', weights_only=False)['state_dict'])


def test_starting_from_the_students_checkpoint_keeps_fresh_connectors(in_digits, tmp_path):
    train(small(STUDENTS['classification'], tmp_path / 'student', train_cfg__max_epochs=1))
    cfg = small(DISTILLED['classification'], tmp_path / 'distilled', train_cfg__max_epochs=1,
                optim_wrapper__optimizer__lr=0.0, param_scheduler=[])
    cfg.load_from = str(tmp_path / 'student' / 'epoch_1.pth')
    cfg.custom_hooks.append(dict(EMA, strict_load=True))
    model = train(cfg).model
    saved = torch.load(tmp_path / 'student' / 'epoch_1.pth', weights_only=False)['state_dict']
    assert torch.equal(model.head.fc.weight, saved['head.fc.weight'])
    assert all(parameter.isfinite().all() for parameter in model.distiller.parameters())
