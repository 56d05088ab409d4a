"""What is measured of a step."""
import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from mmfeatdistill.step_costs import measure
from mmfeatdistill.step_costs.measure import PARTS, measure_step
from mmfeatdistill.step_costs.memory import peak_of, size_of
from mmfeatdistill.step_costs.random_batch import random_batch
from mmfeatdistill.zoo.configs import load_config
from tests.helpers.models import match
from tests.helpers.runs import DISTILLED, small


def over_floor(costs):
    return costs.memory_mib['distilled'] / costs.memory_mib['floor']


def config(tmp_path, *options: dict, path: str = DISTILLED['classification']) -> Config:
    """A config with a teacher for each of the given options."""
    cfg = small(path, tmp_path)
    if options:
        teachers = [dict(copy.deepcopy(cfg.model.teacher), acceleration=option) for option in options]
        cfg.model.teacher = teachers if len(teachers) > 1 else teachers[0]
    return cfg


@pytest.mark.slow
@pytest.mark.parametrize('task', DISTILLED)
def test_a_step_takes_no_more_memory_than_it_must(in_digits, tmp_path, task):
    costs = measure_step(config(tmp_path, path=DISTILLED[task]), rounds=1, warmup=1)
    assert set(costs.seconds) == set(costs.peak_mib) == {*PARTS, 'plain_teacher'} and costs.difference < 1e-5
    assert costs.memory_mib['bare'] <= costs.memory_mib['floor']
    assert 0.8 < over_floor(costs) <= 1.03


@pytest.mark.slow
def test_without_connectors_it_is_the_students_with_weights_and_taps(in_digits, tmp_path):
    costs = measure_step(config(tmp_path, path='cwd/cwd_pspnet_r18-w8-d8_digits.py'), rounds=1, warmup=1)
    assert costs.memory_mib['distilled'] <= 1.03 * costs.memory_mib['bare']


@pytest.mark.slow
def test_an_accelerated_teacher_is_compared_with_the_plain_one(in_digits, tmp_path):
    costs = measure_step(config(tmp_path, dict(fuse_conv_bn=True)), rounds=1, warmup=0)
    assert set(costs.seconds) == {*PARTS, 'plain_teacher'} and 0 < costs.difference < 1e-5
    assert costs.peak_mib['teacher'] <= costs.peak_mib['plain_teacher']


@pytest.mark.slow
def test_several_teachers_take_their_weights_and_taps_only(in_digits, tmp_path):
    one, three = (measure_step(config(tmp_path, *[None] * count), rounds=1, warmup=0) for count in (1, 3))
    assert three.memory_mib['bare'] > one.memory_mib['bare']
    assert over_floor(three) <= 1.03


def test_a_network_whose_data_preprocessor_counts_iterations():
    network = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
    cfg = load_config(network)
    cfg.model = dict(type='mmfeatdistill.FeatureDistiller', student=cfg.model, objectives=dict(fpn=match('neck')),
                     teacher=dict(config=network, checkpoint=None))
    assert measure_step(cfg, rounds=1, warmup=0, batch=random_batch(cfg, 1, 64, 64)).rounds == 1


def test_memory_counts_each_storage_once_and_every_peak():
    weight = torch.zeros(256)
    assert size_of([weight, weight[10:], weight.view(16, 16)]) == 1024

    def run():
        first = torch.zeros(1024)
        del first
        torch.zeros(2048)

    assert peak_of(run, 'cpu') == 8192


def test_a_machine_that_is_slow_for_a_while_changes_times_but_no_ratio(monkeypatch):
    seconds = dict(student=2.0, teacher=1.0, objectives=1.0, distilled=4.4)
    clock = dict(now=0.0)
    order = []

    def part(name):
        order.append(name)
        clock['now'] += seconds[name] * (10 if len(order) < 60 else 1)

    step = SimpleNamespace(
        plain_teachers=[], difference=0.0, memory=lambda peaks: dict(distilled=1, floor=1),
        **{name: partial(part, name) for name in seconds})
    monkeypatch.setattr(measure, '_Step', lambda *_: step)
    monkeypatch.setattr(measure, '_now', lambda device: clock['now'])
    costs = measure_step(Config(), rounds=30, within=0.0, warmup=0)
    assert costs.by_hand.value == pytest.approx(4 / 3)
    assert costs.ratio.value == pytest.approx(1.1) and costs.plain_ratio.value == pytest.approx(4.4 / 3)
    assert order[:8] == [*PARTS, *reversed(PARTS)]
    assert measure_step(Config(), rounds=30, within=0.01, warmup=0).rounds == 10
