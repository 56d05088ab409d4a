"""Every config of real datasets: it is built, trains two iterations and validates, on tiny data in the real formats."""
from pathlib import Path

import pytest
from mmengine.runner import Runner

from tests.runs import CONFIGS
from tests.zoo import make_data, patch_downloads, put_trained_teachers, tiny

ZOO = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.glob('*/*.py')
             if path.parent.name not in ('_base_', 'digits') and not path.stem.endswith('_digits'))


@pytest.fixture(scope='session')
def tiny_data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('datasets')
    make_data(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize('path', ZOO)
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
