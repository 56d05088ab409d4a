"""What every distillation needs is registered by the runner, whoever started it and whatever hooks the student has."""
import subprocess
import sys

import pytest
import torch
from mmengine._strategy import SingleDeviceStrategy
from mmengine.registry import STRATEGIES
from mmengine.runner import FlexibleRunner, Runner

from mmfeatdistill.distillers import FeatureDistiller
from mmfeatdistill.engine.needed_hooks import install
from mmfeatdistill.errors import ConfigError
from tests.helpers.runs import CONFIGS, DISTILLED, STUDENTS, small, train

EMA = dict(type='EMAHook', momentum=0.1)
NEEDED = ['StudentCheckpointHook', 'ExactResumeHook', 'StatisticsHook', 'ReportHook']


def needed(runner) -> list[str]:
    return [name for hook in runner.hooks if (name := type(hook).__name__) in NEEDED]


@pytest.mark.parametrize('hooks', [None, [], [EMA], [dict(type='mmfeatdistill.ExactResumeHook'), EMA]])
def test_a_runner_has_each_once(in_digits, tmp_path, hooks):
    install()  # again, which changes nothing
    cfg = small(DISTILLED['classification'], tmp_path)
    cfg.custom_hooks = hooks
    assert sorted(needed(Runner.from_cfg(cfg))) == sorted(NEEDED)


def test_a_config_that_names_the_first_names_all_that_it_wants(in_digits, tmp_path):
    cfg = small(DISTILLED['classification'], tmp_path)
    cfg.custom_hooks = cfg.custom_hooks[:1]
    assert needed(Runner.from_cfg(cfg)) == NEEDED[:1]


def test_a_student_alone_has_none(in_digits, tmp_path):
    assert not needed(Runner.from_cfg(small(STUDENTS['classification'], tmp_path)))


def test_a_flexible_runner_has_them_before_it_has_a_model(in_digits, tmp_path):
    cfg = small(DISTILLED['classification'], tmp_path)
    cfg.custom_hooks = None
    runner = FlexibleRunner.from_cfg(cfg)
    assert not isinstance(runner.model, FeatureDistiller) and sorted(needed(runner)) == sorted(NEEDED)


@pytest.mark.parametrize('name', ['DeepSpeedStrategy', 'ColossalAIStrategy'])
def test_a_strategy_that_saves_past_the_hooks_is_refused(in_digits, tmp_path, monkeypatch, name):
    """By its name, as the real ones need a GPU to be built."""
    def build(self, train_micro_batch_size_per_gpu=None, gradient_accumulation_steps=None, **options):
        SingleDeviceStrategy.__init__(self, **options)

    monkeypatch.setitem(STRATEGIES._module_dict, name, type(name, (SingleDeviceStrategy,), dict(__init__=build)))
    cfg = small(DISTILLED['classification'], tmp_path, strategy=dict(type=name))
    with pytest.raises(ConfigError, match=f'strategy.type: {name} saves checkpoints past.*mmfeatdistill.FSDPStrategy'):
        FlexibleRunner.from_cfg(cfg)
    FlexibleRunner.from_cfg(small(STUDENTS['classification'], tmp_path, strategy=dict(type=name)))


def test_beside_hooks_of_the_students_own_every_file_is_the_students(in_digits, tmp_path):
    cfg = small(DISTILLED['classification'], tmp_path, train_cfg__max_epochs=1)
    cfg.custom_hooks = [EMA]
    train(cfg)
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    assert saved['distiller']['state_dict'] and saved['distiller']['ema_state_dict']
    assert not any('distiller.' in name for name in (*saved['state_dict'], *saved['ema_state_dict']))


SCRIPT = """
import sys
from mmengine.config import Config
from mmengine.runner import Runner
cfg = Config.fromfile(sys.argv[1])
cfg.merge_from_dict(dict(custom_hooks=None, work_dir=sys.argv[2], log_level='ERROR'))
cfg.model.teacher.checkpoint = None
print([type(hook).__name__ for hook in Runner.from_cfg(cfg).hooks])
"""


@pytest.mark.slow
def test_so_it_is_where_a_config_names_classes_and_no_hooks(digits, tmp_path):
    """Nothing has been looked up by name then, in a process of its own."""
    config = CONFIGS / 'pure_python' / 'channel_mlp' / 'channel_mlp_resnet18_w8_digits.py'
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', SCRIPT, str(config), str(tmp_path)], cwd=digits,
                          text=True, capture_output=True)
    assert all(name in done.stdout for name in NEEDED), done.stderr[-3000:]
