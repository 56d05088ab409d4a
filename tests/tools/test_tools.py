"""The commands, as a user starts them."""
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import mmcv
import pytest
import torch

from tests.conftest import load_script
from tests.helpers.runs import CONFIGS, DISTILLED, STUDENTS

ROOT = CONFIGS.parent
SMALL = ['train_cfg.max_epochs=1', 'train_dataloader.batch_size=8', 'model.teacher.checkpoint=None']
LIBRARIES = dict(classification='mmpretrain', faster_rcnn='mmdet', pspnet='mmseg')


def stock_tool(library: str, name: str) -> str:
    return str(Path(importlib.util.find_spec(library).origin).parent / '.mim' / 'tools' / f'{name}.py')


def start(*command: str, folder: Path) -> subprocess.Popen:
    # Installed packages only: nothing may depend on the repository being the current directory.
    return subprocess.Popen([sys.executable, '-W', 'ignore', *map(str, command)], cwd=folder, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            env=os.environ | dict(OMP_NUM_THREADS='1'))


def run(*command: str, folder: Path) -> str:
    process = start(*command, folder=folder)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-3000:]
    return output


def metric(output: str) -> list[str]:
    """The last line of metrics, without times."""
    line = re.findall(r'Epoch\((?:val|test)\) .*?\]\s+(.*)', output)[-1]
    return [f'{name}{value}' for name, value in re.findall(r'(\S+: )([\d.e+-]+)', line) if 'time' not in name]


@pytest.mark.slow
@pytest.mark.parametrize('task', LIBRARIES)
def test_the_libraries_own_commands_train_and_test(digits, tmp_path, task):
    trained = run(stock_tool(LIBRARIES[task], 'train'), CONFIGS / DISTILLED[task], '--work-dir', tmp_path,
                  '--cfg-options', *SMALL, folder=digits)
    tested = run(stock_tool(LIBRARIES[task], 'test'), CONFIGS / STUDENTS[task], tmp_path / 'epoch_1.pth',
                 '--work-dir', tmp_path, folder=digits)
    assert metric(trained) and metric(tested) == metric(trained)


@pytest.mark.slow
def test_killed_and_resumed_it_ends_with_the_same_weights(digits, tmp_path):
    def command(name: str, *more: str) -> list:
        return [ROOT / 'tools' / 'train.py', CONFIGS / DISTILLED['classification'], '--work-dir', tmp_path / name,
                '--cfg-options', *SMALL[1:], 'train_cfg.max_epochs=40', 'default_hooks.checkpoint.interval=1', *more]

    run(*command('straight'), folder=digits)
    killed = start(*command('killed'), folder=digits)
    while not (tmp_path / 'killed' / 'last_checkpoint').exists():
        time.sleep(0.05)
    time.sleep(0.5)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / 'killed' / 'epoch_40.pth').exists()
    run(*command('killed'), '--resume', folder=digits)
    files = [torch.load(tmp_path / name / 'epoch_40.pth', weights_only=False) for name in ('straight', 'killed')]
    for part in ('state_dict', lambda file: file['distiller']['state_dict']):
        first, second = (file[part] if isinstance(part, str) else part(file) for file in files)
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
def test_own_test_command_needs_no_teacher(digits, tmp_path):
    run(ROOT / 'tools' / 'train.py', CONFIGS / DISTILLED['classification'], '--work-dir', tmp_path,
        '--cfg-options', *SMALL, folder=digits)
    output = run(ROOT / 'tools' / 'test.py', CONFIGS / DISTILLED['classification'], tmp_path / 'epoch_1.pth',
                 '--work-dir', tmp_path / 'test', '--out', tmp_path / 'predictions.pkl', folder=digits)
    assert 'accuracy/top1' in output and (tmp_path / 'predictions.pkl').exists()


def test_nothing_is_loaded_for_random_images():
    """Whether a part's init_cfg is one dict or a list of them; what else they say is kept."""
    loads, draws = dict(type='Pretrained', checkpoint='a.pth'), dict(type='Normal', layer='Linear')
    parts = dict(one=loads, only=[loads], several=[draws, loads], other=draws, others=[draws], none=None)
    model = dict(type='A', pretrained='b.pth', stages=[dict(type='B', init_cfg=loads)],
                 **{name: dict(type=name, init_cfg=init_cfg) for name, init_cfg in parts.items()})
    found = load_script('tools/benchmark_step.py').without_weights(model)
    assert found.pop('type') == 'A' and found.pop('stages') == [dict(type='B')]
    assert found == dict(
        one=dict(type='one'), only=dict(type='only'), several=dict(type='several', init_cfg=[draws]),
        other=dict(type='other', init_cfg=draws), others=dict(type='others', init_cfg=[draws]), none=dict(type='none'))


@pytest.mark.slow
def test_list_taps_and_the_step_benchmark(digits, tmp_path):
    listed = run(ROOT / 'tools' / 'list_taps.py', 'mmseg::_base_/models/pspnet_r50-d8.py', '--depth', '1',
                 folder=digits)
    assert re.search(r'decode_head\b.*PSPHead\b.*19x32x32.*\b8\b', listed)
    run(ROOT / 'tools' / 'benchmark_step.py', CONFIGS / 'lsh/lsh_pspnet_r18-w8-d8_digits.py', '--rounds', '2', '--json',
        tmp_path / 'step.json', '--cfg-options', 'model.teacher.checkpoint=None', folder=digits)
    run(ROOT / 'tools' / 'benchmark_step.py', CONFIGS / 'pkd/pkd_faster-rcnn_r50_fpn_from-r101_2x_coco.py',
        '--images', '1', '64', '96', '--rounds', '1', '--warmup', '0', '--json', tmp_path / 'step.json', '--plot',
        tmp_path / 'step.png', '--report', tmp_path / 'step.md', folder=digits)
    found = json.loads((tmp_path / 'step.json').read_text())
    assert list(found) == ['lsh_pspnet_r18-w8-d8_digits', 'pkd_faster-rcnn_r50_fpn_from-r101_2x_coco 1x64x96']
    assert all(entry['ratio']['value'] > 0 and 0.3 < sum(entry['operators'].values()) <= 1 for entry in found.values())
    assert (tmp_path / 'step.png').read_bytes().startswith(b'\x89PNG')
    page = (tmp_path / 'step.md').read_text()
    assert '![parts of a distilled step](step.png)' in page and page.count('`lsh_pspnet_r18-w8-d8_digits`') == 2


EXPERIMENT = """
import sys
from functools import partial
from mmfeatdistill.experiments.experiment import Experiment
from mmfeatdistill.experiments.scheduler import run_experiments
from mmfeatdistill.experiments.figures import image_grid, training_curves
from mmfeatdistill.experiments.snapshots import save_snapshots
config, work_dir, epochs = sys.argv[1:]
options = {'model.teacher.checkpoint': None, 'train_cfg.max_epochs': int(epochs), 'default_hooks.logger.interval': 1}
snapshots = partial(save_snapshots, tap='neck[0]', folder=f'{work_dir}/snapshots', count=2)
def show(experiment, done, total, text):
    print(f'{text} iteration {done}/{total}', flush=True)
results = run_experiments([Experiment(config, work_dir, options, inspect=snapshots)], on_progress=show)
names = [f'{work_dir}/snapshots/{kind}_{i}.png' for i in range(2) for kind in ('input', 'feature', 'prediction')]
image_grid([names[:3], names[3:]], ['image', 'feature', 'prediction'], f'{work_dir}/grid.png')
training_curves({'task': {'student': work_dir}}, f'{work_dir}/curves.png')
print(results)
"""


@pytest.mark.slow
def test_an_experiment_is_continued_finished_once_and_draws(digits, tmp_path):
    work_dir = tmp_path / 'run'

    def command(epochs: int) -> list:
        return ['-c', EXPERIMENT, CONFIGS / DISTILLED['faster_rcnn'], work_dir, epochs]

    killed = start(*command(12), folder=digits)
    while not (work_dir / 'last_checkpoint').exists():
        assert killed.poll() is None, killed.communicate()[0]
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    assert not (work_dir / 'result.json').exists()
    continued = run(*command(12), folder=digits)
    assert 'iteration 1/' not in continued and 'iteration 48/48' in continued
    result = json.loads((work_dir / 'result.json').read_text())
    assert 'coco/bbox_mAP' in result['metrics'] and result['checkpoint'].endswith('epoch_12.pth')
    for name in ('grid', 'curves'):
        assert mmcv.imread(work_dir / f'{name}.png').std() > 10
    assert 'iteration' not in run(*command(12), folder=digits), 'a finished one is not run again'
    assert 'iteration 4/4' in run(*command(1), folder=digits), 'another config starts anew'
    assert len(list(tmp_path.glob('run.*'))) == 1, 'and what was there is moved aside'
