"""Every shipped config: short, consistent, and it trains."""
import re

import pytest
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.runner import Runner

from tests.helpers.runs import CONFIGS, DISTILLED, small

ALL = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob('*.py'))
DIGITS = [path for path in ALL if path.endswith('_digits.py') and not path.startswith('_base_')]


def own_lines(path: str) -> int:
    return sum(1 for line in (CONFIGS / path).read_text().splitlines()
               if line.strip() and not line.lstrip().startswith('#'))


def test_there_are_configs():
    assert set(DISTILLED.values()) <= set(DIGITS)


@pytest.mark.parametrize('path', ALL)
def test_a_config_is_short(path):
    # What the digits' own networks, data and schedules are stands nowhere else.
    networks_and_data = path.startswith(('digits/', '_base_/digits', 'pure_python/digits'))
    assert own_lines(path) <= (80 if networks_and_data else 20)


def test_a_second_architecture_takes_eight_lines():
    assert own_lines(DISTILLED['mask_rcnn']) <= 8


# The others train in test_method_configs.py and here, as slow tests.
FIRST = ('channel_mlp', 'digits', 'fcfd/fcfd_resnet', 'feed/feed_resnet', 'lsh/lsh_resnet18-w8_', 'ofd/ofd_resnet')


@pytest.mark.parametrize('path', [
    pytest.param(path, marks=[] if path.startswith(FIRST) else pytest.mark.slow) for path in DIGITS])
def test_a_config_trains_two_iterations_and_validates(in_digits, tmp_path, path):
    cfg = small(path, tmp_path, train_cfg__max_epochs=1, train_dataloader__num_batch_per_epoch=2)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2
    assert any(name.startswith('val/') for name in runner.message_hub.log_scalars)


def test_the_readme_quotes_a_config_as_it_is():
    quoted = re.search(r'```python\n(_base_[^`]* # 7\n)```', (CONFIGS.parent / 'README.md').read_text()).group(1)
    plain = ''.join(re.sub(r'\s+# \d$', '', line) + '\n' for line in quoted.splitlines())
    assert plain == (CONFIGS / DISTILLED['faster_rcnn']).read_text()


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*/metafile.yml')), ids=lambda path: path.parent.name)
def test_a_metafile_names_configs_that_are_there(path):
    models = load(path)['Models']
    assert models and all((CONFIGS.parent / model['Config']).is_file() for model in models)
    assert all(f"{model['Name']}.py" == model['Config'].rpartition('/')[2] for model in models)
