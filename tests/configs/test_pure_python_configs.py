"""Configs in mmengine's pure-Python style are the text configs of the same name, and train like them."""
import json
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmfeatdistill import FeatureDistiller
from mmfeatdistill.distill_config import is_distillation, student_config
from mmfeatdistill.zoo.configs import build_model
from tests.helpers.runs import CONFIGS, DISTILLED, STUDENTS, small

PURE = {
    'classification': 'resnet18_w8_digits.py', 'faster_rcnn': 'faster_rcnn_r18_w8_fpn_digits.py',
    'mask_rcnn': 'mask_rcnn_r18_w8_fpn_digits.py', 'pspnet': 'pspnet_r18_w8_d8_digits.py'}
tasks = pytest.mark.parametrize('task', PURE)


def distilled(task: str) -> str:
    return f'pure_python/channel_mlp/channel_mlp_{PURE[task]}'


def test_every_pure_python_config_is_tested():
    found = {str(path.relative_to(CONFIGS)) for path in CONFIGS.glob('pure_python/[!_]*/*.py')}
    assert found == {distilled(task) for task in PURE} | {f'pure_python/digits/{name}' for name in PURE.values()}


def plain(cfg: Config) -> dict:
    """What a config says but for its networks, as plain values; helper variables of the file are left out."""
    left_out = {'model', 'norm_cfg', 'channels'}
    if 'data_preprocessor' in (student_config(cfg) if is_distillation(cfg) else cfg).model:
        left_out.add('data_preprocessor')
    values = {key: value for key, value in cfg.to_dict().items() if key not in left_out}
    return named(values)


def named(values: dict) -> dict:
    """Plain values; a class, which is dumped with its module, has the name that it has in a text config."""
    return json.loads(re.sub(r'"mmfeatdistill\.(?:[\w.]+\.)?(\w+)"', r'"\1"', json.dumps(values)))


@tasks
def test_a_student_is_that_of_the_text_config(task):
    pure = Config.fromfile(CONFIGS / 'pure_python' / 'digits' / PURE[task])
    text = Config.fromfile(CONFIGS / STUDENTS[task])
    assert plain(pure) == plain(text)
    torch.manual_seed(0)
    ours = build_model(pure)
    torch.manual_seed(0)
    theirs = build_model(text)
    assert repr(ours) == repr(theirs)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name]), name
    for part in ('train_cfg', 'test_cfg'):
        assert settings(getattr(ours, part, None)) == settings(getattr(theirs, part, None))


# Defaults that the stock text configs repeat.
REPEATED = {'ignore_iof_thr': -1, 'neg_pos_ub': -1, 'match_low_quality': True, 'add_gt_as_proposals': True}


def settings(cfg):
    """The options of training and testing with names in place of classes, without what only repeats a default."""
    if isinstance(cfg, dict):
        return {key: settings(value) for key, value in cfg.items() if REPEATED.get(key) != value}
    return getattr(cfg, '__name__', cfg)


@tasks
def test_a_distillation_is_that_of_the_text_config(task):
    pure, text = Config.fromfile(CONFIGS / distilled(task)), Config.fromfile(CONFIGS / DISTILLED[task])
    assert plain(pure) == plain(text)
    assert pure.model.type is FeatureDistiller
    assert Config.fromfile(pure.model.teacher.config).model == Config.fromfile(text.model.teacher.config).model
    assert pure.model.teacher.checkpoint == text.model.teacher.checkpoint
    assert named(pure.model.objectives.to_dict()) == named(text.model.objectives.to_dict())
    assert student_config(pure).model.type.__name__ == text.model.student.type


@pytest.mark.parametrize('task', [
    pytest.param(task, marks=[] if task == 'classification' else pytest.mark.slow) for task in PURE])
def test_it_trains_two_iterations_and_validates(in_digits, tmp_path, task):
    cfg = small(distilled(task), tmp_path, train_cfg__max_epochs=1, train_dataloader__num_batch_per_epoch=2)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2
    assert any(name.startswith('val/') for name in runner.message_hub.log_scalars)
    assert any('.loss_0' in name for name in runner.message_hub.log_scalars)
    student = build_model(Config.fromfile(CONFIGS / STUDENTS[task]))
    student.load_state_dict(torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['state_dict'])


@tasks
def test_its_dump_is_a_config_too(tmp_path, task):
    Config.fromfile(CONFIGS / distilled(task)).dump(tmp_path / 'dumped.py')
    again = Config.fromfile(tmp_path / 'dumped.py')
    assert str(again.model.type).rpartition('.')[2].rstrip("'>") == 'FeatureDistiller'
    assert student_config(again).model.type is not None
