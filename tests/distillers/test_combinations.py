"""Objectives of several methods in one run: they add up, and each keeps its own schedule and log."""
import re

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from tests.helpers.models import classification_batch, classifier, count_calls, distiller, losses_of, match, teacher
from tests.helpers.runs import CONFIGS, DISTILLED, small

STAGES = [f'backbone.layer{stage}:pre' for stage in (1, 2, 3, 4)]
OBJECTIVES = dict(
    fcfd=dict(type='FCFD', taps=STAGES, output='head.fc'),
    ofd=dict(type='OFD', taps=STAGES),
    mlp=match('backbone'),
    lsh=dict(type='LSH', taps=[dict(student='head.fc:in', teacher='head.fc:in')], connector=dict(type='Conv1x1'),
             bias='zero', hashes=32),
    kd=dict(type='FeatureMatch', taps=['head.fc'], loss=dict(type='KLDivergence')))


def combined(*names):
    model = distiller(classifier(), teacher(classifier(16)), {name: OBJECTIVES[name] for name in names})
    model.init_weights()
    return model.train()


@pytest.mark.parametrize('names', [('fcfd', 'ofd'), ('lsh', 'mlp'), *((name, 'kd') for name in ('fcfd', 'ofd', 'lsh'))])
def test_losses_add_up_and_the_teacher_runs_once(names):
    together = combined(*names)
    stem, last = (count_calls(getattr(together.teachers[0].model.backbone, part)) for part in ('conv1', 'layer4'))
    batch = classification_batch(*[(64, 64)] * 4)
    torch.manual_seed(3)
    losses = losses_of(together, batch)
    assert len(stem) == 1
    # FCFD alone runs a later part of the teacher again.
    assert len(last) == 1 or 'fcfd' in names
    entries = {name.partition('.')[0] for name in losses if '.loss' in name}
    assert entries == set(names)
    total, _ = together.parse_losses(losses)
    torch.testing.assert_close(total, sum(value for name, value in losses.items() if 'loss' in name))


def test_each_has_its_own_schedule(in_digits, tmp_path):
    cfg = small(DISTILLED['classification'], tmp_path, train_cfg__max_epochs=1)
    cfg.model.objectives = {name: OBJECTIVES[name] for name in ('fcfd', 'ofd', 'kd')}
    hook = dict(type='mmfeatdistill.ObjectiveScheduleHook', by_epoch=False)
    cfg.custom_hooks += [dict(hook, objective='ofd', stop=2), dict(hook, objective='fcfd', stop=3),
                         dict(hook, objective='kd', warmup=4)]
    runner = Runner.from_cfg(cfg)
    record = _Record()
    runner.register_hook(record)
    runner.train()
    assert record.objectives == [{'fcfd', 'ofd', 'kd'}, {'fcfd', 'ofd', 'kd'}, {'fcfd', 'kd'}, {'kd'}]
    assert record.weights == [(1, 1, 0.25), (1, 1, 0.5), (1, 0, 0.75), (0, 0, 1)]


class _Record(Hook):
    """Which objectives logged a loss in each iteration, and their weights."""

    priority = 'LOWEST'

    def __init__(self):
        self.objectives, self.weights = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.objectives.append({name.partition('.')[0] for name in outputs if '.loss' in name})
        self.weights.append(tuple(objective.weight for objective in runner.model.objectives.values()))


def test_the_example_of_the_readme(in_digits, tmp_path):
    blocks = re.findall(r'```python\n(_base_.*?)```', (CONFIGS.parent / 'README.md').read_text(), re.S)
    (example,) = [block for block in blocks if 'ObjectiveScheduleHook' in block]
    config = tmp_path / 'combined.py'
    config.write_text(example.replace("'../_base_", f"'{CONFIGS}/_base_"))
    cfg = small(str(config), tmp_path / 'run', train_cfg__max_epochs=1, train_dataloader__num_batch_per_epoch=2)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.model.objectives['fcfd'].factors == {'loss_appearance': 0.05}
