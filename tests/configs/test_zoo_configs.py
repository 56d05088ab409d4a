"""Every config of real datasets: it is built, trains two iterations and validates, on tiny data in the real formats."""
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from tests.helpers.runs import CONFIGS
from tests.helpers.zoo import make_data, patch_downloads, put_trained_teachers, tiny

ZOO = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.glob('*/*.py')
             if path.parent.name not in ('_base_', 'digits') and '_digits' not in path.stem)


FIRST = {(Path(path).parent.name, Path(path).stem.rsplit('_', 1)[-1]): path for path in reversed(ZOO)}
"""One config of each method and dataset; the others are trained by ``make test-zoo``, as all take half an hour."""


@pytest.fixture(scope='session')
def tiny_data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('datasets')
    make_data(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize('path', [
    pytest.param(path, marks=() if path in FIRST.values() else pytest.mark.zoo) for path in ZOO])
def test_a_config_trains_two_iterations_and_validates(tiny_data, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tiny_data)
    patch_downloads(monkeypatch)
    cfg = tiny(path, tmp_path)
    put_trained_teachers(cfg)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2
    logged = runner.message_hub.log_scalars
    assert {name for name in logged if name.startswith('val/')} - {'val/time', 'val/data_time'}
    for objective, entry in cfg.model.get('objectives', {}).items():
        assert entry is None or any(name.startswith(f'train/{objective}.') for name in logged)


class Beginning(Hook):
    """Notes the weights before the first iteration."""

    def before_train(self, runner):
        self.weights = {name: value.clone() for name, value in runner.model.named_parameters()}


@pytest.mark.slow
def test_the_first_stage_of_lsh_trains_all_but_the_classifier_and_the_second_goes_on_from_it(
        tiny_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_data)
    patch_downloads(monkeypatch)

    def changed(name, **options):
        """The parameters before and after a stage."""
        cfg = tiny(f'lsh/{name}_resnet18-2fc_from-resnet34_60e_voc07.py', tmp_path / name)
        put_trained_teachers(cfg)
        cfg.merge_from_dict(options)
        runner, beginning = Runner.from_cfg(cfg), Beginning()
        runner.register_hook(beginning)
        runner.train()
        return beginning.weights, dict(runner.model.named_parameters())

    start, learned = changed('lsh-stage1')
    loaded, end = changed('lsh', load_from=str(tmp_path / 'lsh-stage1' / 'epoch_1.pth'))
    assert {name for name in start if torch.equal(start[name], learned[name])} == {'head.fc.weight', 'head.fc.bias'}
    assert all(torch.equal(learned[name], loaded[name]) for name in learned)
    assert not any(torch.equal(loaded[name], end[name]) for name in end)
