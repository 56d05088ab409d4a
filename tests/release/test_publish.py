"""Releases of real, short trainings."""
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmfeatdistill.checkpoints.load import read_checkpoint
from mmfeatdistill.engine.stock_student import stock_student
from mmfeatdistill.engine.work_dir import pick_checkpoint
from mmfeatdistill.release.publish import disagreements, publish
from mmfeatdistill.zoo.configs import build_model
from mmfeatdistill.zoo.packages import config_folder
from tests.conftest import load_script
from tests.helpers.runs import CONFIGS, DISTILLED, STUDENTS, small, train

EMA = dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.5)
DISTILLATION = 'channel-mlp_resnet18-w8_digits'


@pytest.fixture(scope='module')
def trained(digits, tmp_path_factory):
    """Work directories of a distillation with averaged weights, and of a student alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(digits)
        folders = {}
        for name, config in (('distilled', DISTILLED['classification']), ('alone', STUDENTS['classification'])):
            folders[name] = tmp_path_factory.mktemp('runs') / name
            cfg = small(config, folders[name], default_hooks__checkpoint__save_best=None,
                        train_cfg__max_epochs=2 if name == 'distilled' else 1)
            if name == 'distilled':
                cfg.custom_hooks.append(EMA)
            train(cfg)
    return folders


@pytest.fixture
def work_dir(trained, tmp_path, in_digits):
    """A copy of the distillation's, to be spoilt."""
    return Path(shutil.copytree(trained['distilled'], tmp_path / 'work_dir'))


def edit(checkpoint: Path, change) -> None:
    saved = torch.load(checkpoint, weights_only=False)
    change(saved)
    torch.save(saved, checkpoint)


def test_a_release_is_the_student_under_the_name_of_its_content(work_dir, tmp_path):
    release = publish(str(work_dir), str(tmp_path / 'out'))
    digest = hashlib.sha256(release.checkpoint.read_bytes()).hexdigest()
    saved = read_checkpoint(str(work_dir / 'epoch_2.pth'))
    stem = f'{DISTILLATION}_{saved["meta"]["time"][:8]}-{digest[:8]}'
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {
        f'{stem}.{ending}' for ending in ('pth', 'py', 'log', 'json')}
    content = torch.load(release.checkpoint, weights_only=True)  # tensors and plain data, nothing else
    assert content.keys() == {'state_dict', 'meta'} and 'dataset_meta' in content['meta']
    stock = build_model(Config.fromfile(CONFIGS / STUDENTS['classification']))
    stock.load_state_dict(content['state_dict'], strict=True)
    assert content['meta']['cfg'] == (tmp_path / 'out' / f'{stem}.py').read_text()
    text = content['meta']['cfg']
    assert all(word not in text for word in ('mmfeatdistill.', 'teacher', 'work_dir', str(work_dir))), text
    assert release.own_parts() == [] and 'EMAHook' in text
    again = publish(str(work_dir), str(tmp_path / 'again'))
    assert again.checkpoint.name == release.checkpoint.name


def test_the_averaged_weights_are_released_and_reproduce_the_log(work_dir, tmp_path):
    release = publish(str(work_dir), str(tmp_path / 'out'))
    saved = read_checkpoint(str(work_dir / 'epoch_2.pth'))
    released = torch.load(release.checkpoint, weights_only=True)['state_dict']
    raw = saved['ema_state_dict']  # mmengine saves them crosswise
    weight = 'backbone.layer1.0.conv1.weight'
    assert release.averaged and torch.equal(released[weight], saved['state_dict'][weight])
    assert not torch.equal(released[weight], raw[f'module.{weight}'])
    logged = [json.loads(line) for line in next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    assert release.metrics == {'accuracy/top1': logged[-1]['accuracy/top1']}
    assert release.results() == [{'Task': 'Image Classification', 'Dataset': 'digit scenes',
                                  'Metrics': {'Top 1 Accuracy': release.metrics['accuracy/top1']}}]


@pytest.mark.slow
def test_the_librarys_own_command_needs_nothing_of_this_project(work_dir, tmp_path):
    release = publish(str(work_dir), str(tmp_path / 'out'))
    command = str(Path(config_folder('mmpretrain')).parent / 'tools' / 'test.py')
    arguments = [command, str(release.checkpoint.with_suffix('.py')), str(release.checkpoint), '--work-dir',
                 str(tmp_path / 'test')]
    alone = str(CONFIGS.parent / 'tests' / 'helpers' / 'alone.py')
    done = subprocess.run([sys.executable, '-W', 'ignore', alone, *arguments], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    tested = json.loads(next((tmp_path / 'test').glob('*/*.json')).read_text())
    assert tested['accuracy/top1'] == release.metrics['accuracy/top1']


def test_a_student_alone_is_released_too(trained, tmp_path, in_digits):
    release = publish(str(trained['alone']), str(tmp_path))
    assert release.checkpoint.name.startswith('resnet18-w8_digits_') and not release.averaged and release.metrics


def test_the_best_checkpoint_comes_first(work_dir):
    assert pick_checkpoint(str(work_dir)) == str(work_dir / 'epoch_2.pth')
    (work_dir / 'best_accuracy_top1_epoch_1.pth').touch()
    assert pick_checkpoint(str(work_dir)) == str(work_dir / 'best_accuracy_top1_epoch_1.pth')
    (work_dir / 'best_loss_epoch_1.pth').touch()
    with pytest.raises(ValueError, match='several best checkpoints: best_accuracy_top1_epoch_1.pth, best_loss_epoch_1'):
        pick_checkpoint(str(work_dir))


def refused(work_dir: Path, tmp_path: Path, error: type, words: str, **options) -> None:
    with pytest.raises(error, match=words):
        publish(str(work_dir), str(tmp_path / 'out'), **options)
    assert not (tmp_path / 'out').exists(), 'nothing is released'


def test_other_weights_do_not_reproduce_the_log(work_dir, tmp_path):
    log = next(work_dir.glob('*/vis_data/scalars.json'))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[-1]['accuracy/top1'] += 1
    log.write_text('\n'.join(map(json.dumps, lines)) + '\n{"accuracy/top1": 3')  # and half a line
    refused(work_dir, tmp_path, ValueError, r'does not reproduce .* within 0.50%: accuracy/top1 is .*, logged')


@pytest.mark.parametrize('change, words', [
    (lambda saved: saved['state_dict'].popitem(), 'does not fit the student .*Missing key'),
    (lambda saved: saved['state_dict'].update(more=torch.ones(1)), 'does not fit the student .*Unexpected key'),
    (lambda saved: saved['meta'].pop('cfg'), "not from a training by mmengine's runner: expected 'state_dict' and"),
    (lambda saved: saved.pop('state_dict'), "not from a training by mmengine's runner")])
def test_checkpoints_that_are_no_students(work_dir, tmp_path, change, words):
    edit(work_dir / 'epoch_2.pth', change)
    refused(work_dir, tmp_path, ValueError, f'(?s){words}', validate=False)


def test_a_checkpoint_that_was_saved_without_the_hook_loses_the_distiller(work_dir, tmp_path):
    edit(work_dir / 'epoch_2.pth', lambda saved: saved['state_dict'].update({'distiller.x': torch.ones(1)}))
    release = publish(str(work_dir), str(tmp_path / 'out'), validate=False)
    assert 'distiller.x' not in torch.load(release.checkpoint, weights_only=True)['state_dict']


def test_files_that_are_broken_or_missing(work_dir, tmp_path):
    entire = (work_dir / 'epoch_2.pth').read_bytes()
    (work_dir / 'epoch_2.pth').write_bytes(entire[:len(entire) // 2])
    refused(work_dir, tmp_path, ValueError, "epoch_2.pth' cannot be read as a checkpoint: expected a complete file")
    (work_dir / 'epoch_2.pth').unlink()
    refused(work_dir, tmp_path, FileNotFoundError, 'neither best_.* nor the file that last_checkpoint names')
    refused(work_dir, tmp_path, FileNotFoundError, 'there is no checkpoint', checkpoint='nothing.pth')
    next(work_dir.glob('*/vis_data/scalars.json')).write_text('')
    refused(work_dir, tmp_path, FileNotFoundError, 'no validation of epoch 1. Choose .* --skip-validation',
            checkpoint=str(work_dir / 'epoch_1.pth'))
    next(work_dir.glob('*/vis_data/scalars.json')).unlink()
    refused(work_dir, tmp_path, FileNotFoundError, 'there is no log .*scalars.json to compare with. Choose',
            checkpoint=str(work_dir / 'epoch_1.pth'))


def test_without_the_data_it_says_so_and_can_be_told_to_go_on(work_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(work_dir, tmp_path, FileNotFoundError,
            'cannot be validated: .*Run it where the data are, .*--skip-validation')
    release = publish(str(work_dir), str(tmp_path / 'out'), validate=False)
    assert release.checkpoint.exists() and release.metrics == {} and release.results() == []


def test_the_command_records_the_release(work_dir, tmp_path, capsys):
    shutil.copytree(CONFIGS, tmp_path / 'configs', ignore=lambda folder, names: [
        name for name in names if Path(folder) == CONFIGS and name not in ('_base_', 'digits', 'channel_mlp')])
    metafile = tmp_path / 'configs' / 'channel_mlp' / 'metafile.yml'
    before = metafile.read_text()
    command = load_script('tools/publish.py')
    command.main([str(work_dir), '--out', str(tmp_path / 'out'), '--metafile', str(metafile), '--url', 'https://a.b/c/'])
    name = next((tmp_path / 'out').glob('*.pth')).name
    added = set(metafile.read_text().splitlines()) - set(before.splitlines())
    assert f'    Weights: https://a.b/c/{name}' in added and '          Top 1 Accuracy' in str(added)
    assert 'averaged (EMA) weights' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='publish.py: .*neither best_'):
        command.main([str(tmp_path / 'out')])


def test_what_is_left_of_a_config():
    cfg = Config(dict(
        model=dict(type='mmfeatdistill.FeatureDistiller', student=dict(type='A', b='mmfeatdistill.c')),
        default_scope='mmdet', config='/home/me/teacher.py', work_dir='x', load_from='y', resume=True,
        launcher='slurm', tta_model=dict(type='B'),
        custom_imports=dict(imports=['mmfeatdistill', 'mmfeatdistill.engine.hooks', 'mine',
                                     'mmfeatdistill.zoo.ssd_fix'],
                            allow_failed_imports=False),
        custom_hooks=[dict(type='mmfeatdistill.StudentCheckpointHook'), dict(type='AlignmentHook'),
                      dict(type='EMAHook')]))
    assert stock_student(cfg).to_dict() == dict(
        default_scope='mmdet', model=dict(type='A', b='mmfeatdistill.c'), tta_model=dict(type='B'),
        custom_imports=dict(imports=['mine', 'mmfeatdistill.zoo.ssd_fix'], allow_failed_imports=False),
        custom_hooks=[dict(type='EMAHook')])
    cfg.custom_imports.imports, cfg.custom_hooks = 'mmfeatdistill', cfg.custom_hooks[:1]
    assert stock_student(cfg).keys() == {'default_scope', 'model', 'tta_model'}


@pytest.mark.parametrize('logged, measured, agree', [
    (0.254, 0.253, True), (0.254, 0.252, False), (71.0, 71.3, True), (71.0, 71.5, False), (-1.0, -1.0, True),
    (float('nan'), float('nan'), True), (float('nan'), 1.0, False), (1.0, float('nan'), False)])
def test_how_far_a_metric_may_be_off(logged, measured, agree):
    assert (disagreements(dict(m=logged), dict(m=measured), 0.005) == []) == agree
    assert disagreements(dict(m=logged), {}, 0.005)
