"""The report at the end of a training, and the student's own config and checkpoint in a work directory."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from PIL import Image
from torch import nn

from mmfeatdistill.engine.hooks import ReportHook
from mmfeatdistill.engine.training_report import read_training, write_report
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.zoo.configs import build_model
from tests.helpers.runs import DISTILLED, STUDENTS, small, train
from tools import report

LABELS = ['gain', 'cost', 'losses', 'checkpoint', 'test', 'picture']


@pytest.fixture(scope='module')
def trained(digits, tmp_path_factory):
    """A student alone, and the same distilled with its alignment measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(digits)
        folder = tmp_path_factory.mktemp('report')
        train(small(STUDENTS['classification'], folder / 'alone', train_cfg__max_epochs=2))
        cfg = small(DISTILLED['classification'], folder / 'distilled', log_level='INFO')
        cfg.custom_hooks = [dict(type='mmfeatdistill.AlignmentHook', interval=2),
                            *(hook for hook in cfg.custom_hooks if not hook.type.endswith('ReportHook')),
                            dict(type='mmfeatdistill.ReportHook', student_alone=str(folder / 'alone'))]
        train(cfg)
        MMLogger.get_current_instance().setLevel('ERROR')
        yield folder


def scalars(work_dir: Path) -> list[dict]:
    (file,) = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_it_says_what_the_logs_say(trained):
    lines = dict(line.split(':', 1) for line in write_report(str(trained / 'distilled'), read_training(
        str(trained / 'alone'))))
    assert list(lines) == LABELS
    score, own = (scalars(trained / name)[-1]['accuracy/top1'] for name in ('distilled', 'alone'))
    assert f'{score:.4g}, and {own:.4g}' in lines['gain'] and lines['gain'].endswith(f'{score - own:+.4g}')
    first = next(line for line in scalars(trained / 'distilled') if 'loss' in line)
    (objective,) = Config.fromfile(next((trained / 'distilled').glob('*digits.py'))).model.objectives
    ratio = first[f'{objective}.loss_0'] / first['loss']
    assert read_training(str(trained / 'distilled')).ratios[objective][1] == pytest.approx(ratio, rel=1e-3)
    assert f'{ratio:.2g}' in lines['losses'] and 'cosine' in lines['losses']
    assert 's that the student alone took' in lines['cost'] and 'best_accuracy_top1' in lines['checkpoint']


def test_the_training_itself_has_reported(trained):
    (log,) = (trained / 'distilled').glob('*/*.log')
    assert all(f'\n{label}: ' in log.read_text() for label in LABELS) and 'of the student alone' in log.read_text()
    with Image.open(trained / 'distilled' / 'distillation.png') as picture:
        pixels = np.asarray(picture.convert('RGB'))
    assert pixels.shape[1] > 3 * pixels.shape[0] and pixels.std() > 10  # three panels, and something in them
    assert not (trained / 'alone' / 'distillation.png').exists()


def test_the_config_beside_it_is_the_students(trained):
    (file,) = (trained / 'distilled').glob('*_student.py')
    assert 'mmfeatdistill' not in file.read_text()
    (checkpoint,) = (trained / 'distilled').glob('best_*.pth')
    saved = torch.load(checkpoint, weights_only=False)['state_dict']
    build_model(Config.fromfile(file)).load_state_dict(saved, strict=True)


def test_scores_stand_at_the_iteration_after_which_they_were_measured(trained):
    training = read_training(str(trained / 'alone'))
    last = [line['iter'] for line in scalars(trained / 'alone') if 'loss' in line][-1]
    assert list(training.scores['accuracy/top1']) == [last // 2, last] and not training.ratios


def test_of_what_was_logged_twice_the_later_counts(tmp_path):
    copied = tmp_path / 'resumed'
    for start, loss in (('20260101_000000', 1.0), ('20260102_000000', 2.0)):
        folder = copied / start / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'config.py').write_text("model = dict(objectives=dict(backbone=dict(type='FeatureMatch')))")
        (folder / 'scalars.json').write_text(json.dumps(
            {'loss': 1.0, 'backbone.loss_0': loss, 'iter': 5, 'step': 5, 'time': 0.1}) + '\n{"loss": 1')
    (curve,) = read_training(str(copied)).ratios.values()
    assert curve == {5: 2.0}


def test_the_command_compares_afterwards(trained, capsys):
    report.main([str(trained / 'distilled'), '--student-alone', str(trained / 'alone')])
    assert [line.partition(':')[0] for line in capsys.readouterr().out.splitlines()] == LABELS
    with pytest.raises(SystemExit, match='no work directory of a training'):
        report.main([str(trained / 'distilled' / 'nowhere')])


def test_a_runner_that_was_built_without_a_config_ends_as_any(tmp_path):
    """As mmengine's tutorial builds it, by arguments; then no config lies beside the scalars."""
    runner = Runner(model=nn.Linear(1, 1), work_dir=str(tmp_path), experiment_name='by_arguments', log_level='ERROR')
    runner.visualizer.add_scalar('loss', 1.0)
    assert list(tmp_path.glob('*/vis_data'))
    ReportHook().after_train(runner)
    assert not (tmp_path / 'distillation.png').exists()


def test_a_wrong_student_alone_is_refused_before_the_training(tmp_path):
    with pytest.raises(ConfigError, match='ReportHook.student_alone.*no work directory of a training'):
        ReportHook(student_alone=str(tmp_path))
