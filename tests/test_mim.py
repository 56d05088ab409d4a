"""The commands of mim, by which MM users run a library that they have installed."""
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.helpers.runs import CONFIGS

pytestmark = pytest.mark.slow
CONFIG = CONFIGS / 'channel_mlp' / 'channel-mlp_resnet18-w8_digits.py'
STUDENT, TEACHER = (str(CONFIGS / 'digits' / f'resnet18-w{width}_digits.py') for width in (8, 32))
SHORT = ['--cfg-options', 'train_cfg.max_epochs=1', 'model.teacher.checkpoint=None']


@pytest.fixture
def mim(digits, tmp_path, monkeypatch):
    """Runs a command of mim where the digit scenes are, and returns what it has printed."""
    pytest.importorskip('mim')
    # The source tree itself, on the path of the tests, has metadata too.
    told = [found.read_text('direct_url.json') for found in metadata.distributions(name='mmfeatdistill')]
    if not any(json.loads(text).get('dir_info', {}).get('editable') for text in told if text):
        pytest.skip('mim finds an editable installation only (docs/getting_started.md)')
    (tmp_path / 'data').symlink_to(digits / 'data')
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        command = [str(Path(sys.executable).with_name('mim')), *map(str, arguments)]
        done = subprocess.run(command, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout
    return run


def test_search(mim):
    assert 'digits/resnet18-w32_digits.py' in mim('search', 'mmfeatdistill', '--config', CONFIG.stem)


def test_train_and_test(mim):
    mim('train', 'mmfeatdistill', CONFIG, '--gpus', 0, '--work-dir', 'run', *SHORT)
    (student,) = Path('run').glob('*_student.py')
    assert 'accuracy/top1' in mim('test', 'mmfeatdistill', student, '--gpus', 0, '--checkpoint', 'run/epoch_1.pth')


def test_run(mim):
    assert 'channel_mlp' in mim('run', 'mmfeatdistill', 'distill', '--list-methods', STUDENT, TEACHER)


def test_gridsearch(mim):
    mim('gridsearch', 'mmfeatdistill', CONFIG, '--gpus', 0, '--work-dir', 'grid', '--search-args',
        '--model.objectives.stage4.loss.loss_weight 1.0 2.0', *SHORT)
    assert len(list(Path().glob('grid_search_*/epoch_1.pth'))) == 2
