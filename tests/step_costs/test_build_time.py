"""What building a distiller costs."""
import pytest
import torch
from mmengine.config import Config

from mmfeatdistill.step_costs.build_time import measure_build
from mmfeatdistill.zoo.configs import build_model, load_config
from tests.helpers.runs import CONFIGS, teachers_of


@pytest.mark.parametrize('path', ['channel_mlp/channel-mlp_resnet18-w8_digits.py', 'feed/feed_resnet18-w8_digits.py'])
def test_all_parts_are_measured_with_their_checkpoints(tmp_path, path):
    cfg = Config.fromfile(CONFIGS / path)
    checkpoint = tmp_path / 'teacher.pth'
    for teacher in teachers_of(cfg):
        torch.save(build_model(load_config(teacher.config)).state_dict(), checkpoint)
        teacher.checkpoint = str(checkpoint)
    before = cfg.to_dict()
    costs = measure_build(cfg, rounds=1)
    assert costs.seconds.keys() == {'student', 'teacher', 'distiller'}
    assert min(costs.seconds.values()) > 0
    assert costs.ratio == pytest.approx(costs.seconds['distiller'] / (costs.seconds['student']
                                                                      + costs.seconds['teacher']))
    assert cfg.to_dict() == before
