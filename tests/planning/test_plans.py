"""What is decided of a pair, what options say instead, and that the config which is written trains."""
import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmfeatdistill.planning.networks import find_checkpoint, load_student, load_teacher, student_reference
from mmfeatdistill.planning.tap_proposals import NoTaps, propose
from mmfeatdistill.planning.tap_proposals import _last_of_each_stride as last_of_each_stride
from mmfeatdistill.planning.tap_proposals import _Level as Level
from mmfeatdistill.taps.layout import Layout
from mmfeatdistill.zoo.configs import build_model, load_config
from tests.helpers import models
from tests.planning.conftest import CLASSES, pair

CLASSIFIERS, DETECTORS, SEGMENTERS = pair('classification'), pair('detection'), pair('segmentation')
FAST = ['--weight', '0.25', '--images', '0']  # nothing is measured
BOXES = ['--data-root', 'mine', '--train-ann', 'annotations/instances_train2017.json', '--val-ann',
         'annotations/instances_val2017.json']
SHORT = {'train_cfg': dict(type='IterBasedTrainLoop', max_iters=2, val_interval=100), 'log_level': 'ERROR',
         'train_dataloader.batch_size': 2, 'train_dataloader.persistent_workers': False,
         'train_dataloader.num_workers': 0}


def objectives(file: str) -> dict:
    return Config.fromfile(file).model.objectives.to_dict()


def train(file: str, **options) -> Runner:
    """Two iterations of a config, of any teacher."""
    DefaultScope._instance_dict.clear()
    cfg = Config.fromfile(file)
    cfg.merge_from_dict(SHORT | {'work_dir': 'run', 'model.teacher.checkpoint': None} | options)
    cfg.train_cfg = cfg.train_cfg.to_dict()
    cfg.train_cfg.pop('max_epochs', None)
    for part in ('cfg', 'dataloader', 'evaluator'):
        cfg[f'val_{part}'] = cfg[f'test_{part}'] = None
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


# What is proposed.

CHAINS = dict(detection=models.detector, segmentation=models.segmenter, classification=models.classifier)


def networks(tmp_path: Path, student, teacher):
    """The two networks of model configs."""
    files = []
    for name, (model, scope) in dict(student=student, teacher=teacher).items():
        files.append(str(tmp_path / f'{name}.py'))
        cfg = Config(dict(model=model, default_scope=scope, train_cfg=dict(max_epochs=1),
                          train_dataloader=dict(dataset=dict(type='A'))))
        cfg.dump(files[-1])
    student = load_student(files[0], load_config(files[0]))
    DefaultScope._instance_dict.clear()
    return student, load_teacher(files[1], load_config(files[1]), None, student)[0]


def of(make, **options):
    model = make(**options)
    return model, model['_scope_']


def test_detectors_are_matched_by_stride(tmp_path):
    """Levels that only one of them has are left out; where all are alike, the neck is named as a whole."""
    student, teacher = networks(tmp_path, of(models.detector), of(models.detector, width=16))
    assert propose('features', student, teacher).taps == ['neck']
    teacher = models.detector(16)
    teacher.neck.update(start_level=1, num_outs=4)  # strides of 8 to 64, where the student has 4 to 64
    student, teacher = networks(tmp_path, of(models.detector), (teacher, 'mmdet'))
    found = propose('features', student, teacher)
    assert 'with stride 8, 16, 32' in found.reason and 'stride 4,' not in found.reason
    with pytest.raises(NoTaps, match='no one layer that classifies'):
        propose('logits', student, teacher)


def test_logits_of_networks_that_do_not_say_their_classes(tmp_path):
    """The layers of a head show how many there are, if it ends in one width; else nothing is said of the classes."""
    silent = models.classifier()
    silent['head'] = dict(type='VigClsHead', num_classes=10, in_channels=64, hidden_dim=12)
    student, teacher = networks(tmp_path, of(models.classifier), (silent, 'mmpretrain'))
    assert teacher.classes == 10
    assert propose('logits', student, teacher).taps == [dict(student='head.fc', teacher='head.fc2')]
    headless = models.classifier()
    headless['head'] = dict(type='ClsHead')
    for first, second, said in ((headless, silent, 'the student has'), (silent, headless, 'the teacher has'),
                                (headless, headless, 'the student and the teacher have')):
        with pytest.raises(NoTaps, match=f'not known how many classes {said}.*--taps') as caught:
            propose('logits', *networks(tmp_path, (first, 'mmpretrain'), (second, 'mmpretrain')))
        assert 'None' not in str(caught.value)


def test_cropped_levels_are_left_out():
    """SSD's last levels have the stride of the one before, without its border; stages of stride 8 are whole."""
    ssd = [Level(f'neck[{i}]', Layout('map', stride), {i}, size * size)
           for i, (stride, size) in enumerate([(16, 32), (32, 16), (64, 8), (64, 6), (64, 4)])]
    stages = [Level(f'backbone[{i}]', Layout('map', stride), {i}, size * size)
              for i, (stride, size) in enumerate([(4, 16), (8, 8), (8, 8)])]
    assert [level.tap for level in last_of_each_stride(ssd).values()] == ['neck[0]', 'neck[1]', 'neck[2]']
    assert [level.tap for level in last_of_each_stride(stages).values()] == ['backbone[0]', 'backbone[2]']


def test_segmenters_are_matched_at_the_last_stage_that_is_read(tmp_path):
    student, teacher = networks(tmp_path, of(models.segmenter), of(models.segmenter, width=16))
    assert propose('features', student, teacher).taps == ['backbone[-1]']
    assert propose('logits', student, teacher).taps == ['decode_head.conv_seg']
    assert propose('penultimate', student, teacher).taps == ['decode_head.conv_seg:in']
    student.model.decode_head.in_index = 1
    assert propose('features', student, teacher).taps == [dict(student='backbone[1]', teacher='backbone[-1]')]


def test_classifiers_are_matched_at_the_last_stage(tmp_path):
    """Of a transformer, tokens stand on their grid; of a ConvNeXt, whose backbone pools, a module inside is found."""
    for make, words in ((models.classifier, 'stride 32 in both'), (models.transformer, 'tokens on their grid'),
                        (models.convnext, 'stride 32 in both')):
        student, teacher = networks(tmp_path, of(models.classifier), of(make))
        found = propose('features', student, teacher)
        assert words in found.reason, found
    student, teacher = networks(tmp_path, of(models.classifier), of(models.classifier, width=16))
    assert propose('stages', student, teacher).taps == [f'backbone.layer{i}' for i in (1, 2, 3, 4)]
    assert propose('preactivations', student, teacher).taps == [f'backbone.layer{i}:pre' for i in (1, 2, 3, 4)]
    assert propose('logits', student, teacher).taps == ['head.fc']


# What is written.

@pytest.mark.parametrize('task, names', [
    ('classification', CLASSIFIERS), pytest.param('segmentation', SEGMENTERS, marks=pytest.mark.slow)])
def test_what_is_written_trains(distill, task, names):
    said = distill.dry(*names, *FAST)
    assert f', {task}, ' in said and 'weight:  0.25, as given' in said and 'weights: none, so it is random' in said
    written, = distill.folder.joinpath('configs', 'my').iterdir()
    assert written.name == f'channel-mlp_{Path(names[0]).stem}_from-{Path(names[1]).stem.replace("_", "-")}.py'
    text = written.read_text()
    assert 'Written by tools/distill.py' in ' '.join(text.replace('#', '').split())
    assert 8 <= len(text.splitlines()) <= 18
    assert objectives(written)['features']['loss'] == dict(type='SquaredError', loss_weight=0.25)
    runner = train(written)
    assert runner.iter == 2 and any('features.loss' in key for key in runner.message_hub.log_scalars)
    assert distill.refusal(*names, *FAST, '--dry-run', '--teacher-checkpoint', 'none').startswith('--out: ')
    assert written.read_text() == text


def test_options_stand_in_the_config(distill):
    distill.dry(*DETECTORS, '--taps', 'neck[0]', 'backbone[1]=backbone[1]', '--method', 'cwd', '--out', 'a/b.py', *FAST)
    found = objectives('a/b.py')['features']
    assert found['taps'] == ['neck[0]', dict(student='backbone[1]', teacher='backbone[1]')]
    assert found['loss'] == dict(type='ChannelWiseDivergence', tau=1.0, loss_weight=0.25)


def test_published_weights_are_kept(distill):
    said = distill.dry(*CLASSIFIERS, '--method', 'kd', '--images', '0', '--out', 'kd.py')
    assert 'as published' in said and "logits: ['head.fc']" in said
    assert objectives('kd.py')['logits']['loss']['loss_weight'] == 0.1


@pytest.mark.slow
def test_a_ratio_is_measured(distill):
    """A loss is so many times the student's own; twice the ratio is twice the weight, as the seed is the same."""
    options = ['--iterations', '2', '--cfg-options', 'randomness.seed=1', 'train_dataloader.batch_size=4',
               'train_dataloader.persistent_workers=False', 'train_dataloader.num_workers=0']
    weights = []
    for ratio in ('1', '2'):
        said = distill.dry(*CLASSIFIERS, '--images', '0', '--ratio', ratio, '--out', f'{ratio}.py', *options)
        assert f"{ratio} times the student's own" in said and 'as measured over 2 iterations' in said
        assert 'check:   left out' in said
        weights.append(objectives(f'{ratio}.py')['features']['loss']['loss_weight'])
    assert weights[1] == pytest.approx(2 * weights[0], rel=0.3) and weights[1] > weights[0]
    assert 'randomness' not in Path('1.py').read_text(), 'options of this training are not written'


def test_missing_data_are_replaced_in_a_dry_run(distill):
    (distill.folder / 'data').unlink()
    said = distill.dry(*CLASSIFIERS, *FAST, '--out', 'a.py')
    assert 'goes on with random images' in said and 'makes a step on random images' in said


@pytest.mark.slow
def test_it_trains_and_resumes(distill, teacher_file):
    """With the config that is there, once it is asked to resume."""
    options = ['--teacher-checkpoint', str(teacher_file), '--images', '0', '--out', 'mine.py', '--work-dir', 'run',
               *FAST, '--cfg-options', 'train_cfg.max_epochs=1', 'default_hooks.checkpoint.save_best=None',
               'train_dataloader.persistent_workers=False', 'val_dataloader.persistent_workers=False',
               'train_dataloader.num_workers=0', 'train_dataloader.batch_size=16']
    said = distill(*CLASSIFIERS, *options)
    assert f'{teacher_file}, as given' in said
    text = Path('mine.py').read_text()
    assert Path('run/epoch_1.pth').is_file() and f'checkpoint={str(teacher_file)!r}' in text
    said = distill(*CLASSIFIERS, *options, 'train_cfg.max_epochs=2', '--resume')
    assert 'written' not in said and Path('run/epoch_2.pth').is_file() and Path('mine.py').read_text() == text


@pytest.mark.slow
def test_after_its_measurements_it_writes_where_it_was_told(distill, monkeypatch):
    """Stock configs of mmdet and mmseg name their visualizer, which a process then has once."""
    from mmseg.visualization import SegLocalVisualizer
    monkeypatch.setattr(SegLocalVisualizer, '_instance_dict', OrderedDict())  # as in a process of its own
    torch.save(dict(state_dict=build_model(load_config(SEGMENTERS[1])).state_dict()), 'teacher.pth')
    short = {'train_cfg.max_epochs': 1, 'train_dataloader.dataset.indices': 8, 'train_dataloader.batch_size': 4,
             'val_dataloader.dataset.indices': 2}
    for loader in ('train_dataloader', 'val_dataloader'):
        short |= {f'{loader}.num_workers': 0, f'{loader}.persistent_workers': False}
    distill(*SEGMENTERS, '--teacher-checkpoint', 'teacher.pth', '--images', '0', '--iterations', '2', '--work-dir',
            'run', '--cfg-options', *(f'{key}={value}' for key, value in short.items()))
    assert Path('run/epoch_1.pth').is_file() and list(Path('run').glob('*/vis_data/scalars.json'))


def test_methods_are_listed(distill):
    before = distill.files()
    said = distill(*CLASSIFIERS, '--list-methods')
    assert distill.files() == before
    rows = {line.split('│')[1].strip(): line.split('│')[2].strip() for line in said.splitlines() if line.count('│') > 3}
    assert rows['kd'] == rows['reviewkd'] == 'yes' and rows['fgd'] == 'no'


def test_networks_that_may_teach_little_are_warned_of(distill):
    said = distill.dry(*reversed(CLASSIFIERS), *FAST, '--out', 'a.py')
    assert 'warning: the teacher has' in said and 'one that is no larger seldom knows more' in said


def test_checkpoints_that_training_has_left_are_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'net.py').write_text('model = dict(type="A")\n')
    folder = tmp_path / 'work_dirs' / 'net'
    folder.mkdir(parents=True)
    cfg = load_config('net.py')
    with pytest.raises(ValueError, match='TEACHER: net.py has no weights'):
        find_checkpoint('net.py', cfg)
    (folder / 'epoch_3.pth').touch()
    (folder / 'last_checkpoint').write_text('/moved/epoch_3.pth')
    assert find_checkpoint('net.py', cfg) == 'work_dirs/net/epoch_3.pth'
    (folder / 'best_accuracy_epoch_2.pth').touch()
    assert find_checkpoint('net.py', cfg) == 'work_dirs/net/best_accuracy_epoch_2.pth'
    assert find_checkpoint('mmdet::a.py', cfg) == 'zoo'


# Data of one's own.

def test_own_boxes_are_trained_on(distill):
    said = distill.dry(*DETECTORS, *BOXES, *FAST, '--out', 'mine_too.py')
    assert "mine, 3 classes; images in 'train2017/' and 'val2017/'" in said
    assert 'logits could not be matched' in said, 'the teacher has other classes'
    cfg = Config.fromfile('mine_too.py')
    assert cfg.model.student.roi_head.bbox_head.num_classes == 3
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.data_root == 'mine' and loader.dataset.metainfo.classes == CLASSES
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file == 'mine/annotations/instances_val2017.json'
    alone = Config.fromfile('faster-rcnn_r18-w8_fpn_digits_mine.py')
    assert alone.model == cfg.model.student and alone.train_dataloader == cfg.train_dataloader
    assert train('mine_too.py').iter == 2


def test_classes_are_numbered_as_mmdet_numbers_them(distill):
    """By the order in the file, in whatever order they are asked for."""
    file = distill.folder / 'mine' / 'annotations' / 'instances_train2017.json'
    assert [entry['name'] for entry in json.loads(file.read_text())['categories']] == list(CLASSES)
    distill.dry(*DETECTORS, *BOXES, *FAST, '--classes', 'ring', 'nut', '--out', 'two.py')
    cfg = Config.fromfile('two.py')
    assert cfg.train_dataloader.dataset.metainfo.classes == ('nut', 'ring')
    DefaultScope._instance_dict.clear()
    from mmdet.registry import DATASETS
    from mmdet.utils import register_all_modules
    register_all_modules()
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    names = {entry['id']: entry['name'] for entry in json.loads(file.read_text())['categories']}
    assert [names[number] for number in dataset.cat_ids] == list(dataset.metainfo['classes'])


@pytest.mark.parametrize('name', ['gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py',
                                  'legacy_1.x/retinanet_r50_fpn_1x_coco_v1.py',
                                  'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'])
def test_stock_configs_of_all_folders_can_be_inherited(tmp_path, name):
    file = tmp_path / 'inheriting.py'
    file.write_text(f'_base_ = {student_reference(load_config(f"mmdet::{name}"), None)}')
    assert Config.fromfile(file).model.type in ('FasterRCNN', 'RetinaNet')
