"""Teachers looked at before training: a small one that knows colors, and what can be wrong with it."""
import json
import random
from pathlib import Path
from types import SimpleNamespace

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData

from mmfeatdistill.checkpoints.load import LoadReport
from mmfeatdistill.checkpoints.load_fit import explain_load, find_renaming
from mmfeatdistill.checks.evaluation import ValidationData, clearly_better
from mmfeatdistill.checks.preflight import preflight
from mmfeatdistill.checks.teacher_check import check_teachers
from mmfeatdistill.distillers.batch_errors import num_classes
from mmfeatdistill.engine.hooks import TeacherCheckHook, teacher_check_hook
from mmfeatdistill.errors import ConfigError
from tests.conftest import load_script
from tests.helpers.models import build, classifier, detector, match, segmenter
from tests.helpers.runs import DISTILLED, small, train

# Exchanging red and blue makes one of another.
COLORS = dict(blue=(230, 60, 60), cyan=(220, 220, 60), red=(60, 60, 230), yellow=(60, 220, 220))  # BGR


def painted(color, draw):
    return np.clip(np.array(color) + draw.normal(0, 40, (32, 32, 3)), 0, 255).astype(np.uint8)


def color_classifier(width=8, classes=4):
    model = classifier(width)
    model['head'].num_classes = classes
    return model


def validation(folder):
    return dict(batch_size=5, num_workers=2, persistent_workers=True, prefetch_factor=4,
                sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(
                    type='CustomDataset', data_root=str(folder / 'val'),
                    pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))


def write_config(path, model, folder):
    Config(dict(default_scope='mmpretrain', model=model, val_dataloader=validation(folder))).dump(path)


@pytest.fixture(scope='module')
def colors(tmp_path_factory) -> Path:
    """A folder with images of colors, and a network that tells them apart."""
    from mmpretrain.structures import DataSample
    folder, draw = tmp_path_factory.mktemp('colors'), np.random.default_rng(0)
    for name, color in COLORS.items():
        for index in range(10):
            mmcv.imwrite(painted(color, draw), str(folder / 'val' / name / f'{index}.png'))
    torch.manual_seed(0)
    model = build(color_classifier()).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(15):
        batch = dict(inputs=[torch.from_numpy(painted(color, draw)).permute(2, 0, 1)
                             for color in COLORS.values() for _ in range(6)],
                     data_samples=[DataSample().set_gt_label(index) for index in range(4) for _ in range(6)])
        loss = model(**model.data_preprocessor(batch, True), mode='loss')['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(dict(state_dict=model.state_dict()), folder / 'teacher.pth')
    write_config(folder / 'teacher.py', color_classifier(), folder)
    return folder


@pytest.fixture
def cfg(colors):
    """A distillation by that network."""
    return Config(dict(
        default_scope='mmpretrain',
        model=dict(type='mmfeatdistill.FeatureDistiller', student=color_classifier(),
                   teacher=dict(config=str(colors / 'teacher.py'), checkpoint=str(colors / 'teacher.pth')),
                   objectives=dict(stage4=match('backbone'))),
        val_dataloader=validation(colors), val_evaluator=dict(type='Accuracy', topk=(1,))))


def errors(shown):
    return [finding.text for check in shown.teachers for finding in check.findings if finding.is_error]


def renamed(colors, tmp_path, rename):
    state_dict = torch.load(colors / 'teacher.pth', weights_only=False)['state_dict']
    names = {name: rename(name) for name in state_dict}
    torch.save(dict(state_dict={names[name]: value for name, value in state_dict.items() if names[name]}),
               tmp_path / 'renamed.pth')
    return str(tmp_path / 'renamed.pth')


def test_a_good_teacher_passes(cfg):
    shown = preflight(cfg, 40)
    assert shown.passed and not errors(shown)
    [check] = shown.teachers
    assert check.load_report.complete and check.scores.metric == 'accuracy/top1' and check.scores.images == 40
    assert check.scores.mean('declared') > 90 and check.scores.mean('random') < 60 and check.chance >= 25
    assert check.scores.mean('swapped') < 10
    [row] = shown.taps
    assert row == ('stage4', 'backbone[0] (stride 32) 64x2x2', 'backbone[0] (stride 32) 64x2x2', '64x2x2', '64x2x2')
    assert [(row.order, row.classes, row.converted) for row in shown.inputs] == [('RGB', 4, '-'), ('RGB', 4, 'no')]


def test_the_check_draws_nothing_and_leaves_the_models_as_they_were(cfg):
    init_default_scope('mmpretrain')
    distiller = build(cfg.model).train()
    before = {name: value.clone() for name, value in distiller.state_dict().items()}
    torch.rand(3)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    check_teachers(distiller, cfg, 20)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state[1:]
    assert distiller.student.training and not distiller.teachers[0].model.training
    assert all(torch.equal(value, before[name]) for name, value in distiller.state_dict().items())


def test_another_width(cfg, colors, tmp_path):
    write_config(tmp_path / 'wide.py', color_classifier(16), colors)
    cfg.model.teacher.config = str(tmp_path / 'wide.py')
    shown = preflight(cfg, 20)
    [text] = errors(shown)
    assert 'of another shape' in text and 'a network of another width' in text and 'file [8, 3, 7, 7]' in text
    assert shown.teachers[0].scores is None and shown.taps[0].teacher == 'backbone[0] (stride 32) 128x2x2'


@pytest.mark.parametrize('rename, words', [
    (lambda name: f'architecture.teacher.{name}', "without 'architecture.teacher.' in front, 102 of the 102"),
    (lambda name: name.removeprefix('backbone.') if name.startswith('backbone.') else None,
     "with 'backbone.' in front, 100 of the 102 missing tensors would be found. The other 2 are not in the file.")])
def test_names_with_another_prefix(cfg, colors, tmp_path, rename, words):
    cfg.model.teacher.checkpoint = renamed(colors, tmp_path, rename)
    shown = preflight(cfg, 20)
    [text] = errors(shown)
    assert words in text
    # What it says how to do, does it.
    source = text.partition('To rename them: ')[2].replace("'renamed.pth'", repr(str(tmp_path / 'renamed_too.pth')))
    exec(source, dict(torch=torch))
    cfg.model.teacher.update(checkpoint=str(tmp_path / 'renamed_too.pth'), strict=False)
    assert preflight(cfg, 20).teachers[0].load_report.matched >= 100


def test_random_weights_are_at_chance(cfg, colors, tmp_path):
    torch.save(build(color_classifier()).state_dict(), tmp_path / 'untrained.pth')
    for checkpoint, words in ((str(tmp_path / 'untrained.pth'), 'Are these the weights of this very config'),
                              (None, 'model.teacher.checkpoint is None: give the trained weights')):
        cfg.model.teacher.checkpoint = checkpoint
        shown = preflight(cfg, 40)
        [text] = errors(shown)
        assert 'at chance level' in text and words in text and 'allow_chance=True' in text and not shown.passed


def test_channels_in_the_wrong_order(cfg, colors, tmp_path):
    model = color_classifier()
    model.data_preprocessor.to_rgb = False
    write_config(tmp_path / 'swapped.py', model, colors)
    cfg.model.teacher.config = str(tmp_path / 'swapped.py')
    for images in (10, 40):
        [text] = errors(preflight(cfg, images))
        assert f'data_preprocessor.to_rgb is False in {tmp_path / "swapped.py"}; it should be True' in text
    # A teacher without a config takes the student's data preprocessor.
    cfg.model.student.data_preprocessor.to_rgb = False
    model.pop('data_preprocessor')
    cfg.model.teacher = dict(model=model, checkpoint=str(colors / 'teacher.pth'))
    [text] = errors(preflight(cfg, 40))
    assert "data_preprocessor.to_rgb is False in the student's config" in text


def test_a_teacher_keeps_its_own_input_and_pipeline(cfg, colors, tmp_path):
    """A student with another normalization and pipeline has no say in what its teacher is evaluated with."""
    cfg.model.student.data_preprocessor.update(to_rgb=False, mean=[0, 0, 0], std=[1, 1, 1])
    cfg.val_dataloader.dataset.pipeline.insert(1, dict(type='Grayscale'))
    shown = preflight(cfg, 20)
    assert shown.passed and [row.converted for row in shown.inputs] == ['-', 'yes']
    assert [row.order for row in shown.inputs] == ['BGR', 'RGB']


def test_all_of_a_large_image_is_compared_with_the_teachers_own_pipeline(cfg, tmp_path):
    draw = np.random.default_rng(0)
    for name, color in COLORS.items():
        image = np.full((192, 192, 3), 124, np.uint8)  # corners say nothing of what is in the middle
        image[64:128, 64:128] = np.kron(painted(color, draw), np.ones((2, 2, 1)))
        mmcv.imwrite(image, str(tmp_path / 'val' / name / '0.png'))
    cfg.train_dataloader, cfg.val_dataloader = validation(tmp_path), validation(tmp_path)
    [finding] = [finding for check in preflight(cfg, 4).teachers for finding in check.findings
                 if 'from its own pipeline mean' in finding.text]
    assert not finding.is_error, finding.text


def test_classes_of_the_student_and_the_teacher(cfg):
    cfg.model.student['head'].num_classes = 6
    shown = preflight(cfg, 20)
    assert shown.passed and any('6 classes and the teacher 4. That is fine' in finding.text
                                for finding in shown.teachers[0].findings)
    logits = dict(type='FeatureMatch', taps=['head.fc'], loss=dict(type='KLDivergence', tau=4))
    cfg.model.objectives = dict(kd=logits)
    with pytest.raises(ConfigError, match=r'model.objectives.kd.*\(student 6, teacher 4\): features can be matched'):
        preflight(cfg, 20)


def test_a_teacher_of_other_classes_cannot_be_evaluated(cfg, colors, tmp_path):
    write_config(tmp_path / 'seven.py', color_classifier(classes=7), colors)
    torch.save(build(color_classifier(classes=7)).state_dict(), tmp_path / 'seven.pth')
    cfg.model.teacher = dict(config=str(tmp_path / 'seven.py'), checkpoint=str(tmp_path / 'seven.pth'))
    shown = preflight(cfg, 20)
    assert shown.passed and shown.teachers[0].scores is None
    assert shown.teachers[0].findings[-1].text == ('It could not be evaluated: it has 7 classes and the validation '
                                                   'data 4.')


def test_each_of_several_teachers(cfg):
    cfg.model.teacher = [cfg.model.teacher, dict(cfg.model.teacher, checkpoint=None)]
    shown = preflight(cfg, 20)
    assert [(check.key, check.passed) for check in shown.teachers] == [('model.teacher[0]', True),
                                                                      ('model.teacher[1]', False)]


def test_the_command(cfg, colors, tmp_path, capsys):
    tool = load_script('tools/check_teacher.py')
    cfg.dump(tmp_path / 'distill.py')
    assert tool.main([str(tmp_path / 'distill.py'), '--images', '20']) == 0
    printed = capsys.readouterr().out
    assert 'The teacher is fine.' in printed and '123.675, 116.28, 103.53' in printed and '64x2x2' in printed
    assert tool.main([str(tmp_path / 'distill.py'), '--images', '20', '--cfg-options',
                      'model.teacher.checkpoint=nowhere.pth']) == 1
    assert "model.teacher.checkpoint: there is no checkpoint 'nowhere.pth'" in capsys.readouterr().out
    assert tool.main([str(tmp_path / 'distill.py'), '--images', '20', '--cfg-options',
                      'model.teacher.checkpoint=None']) == 1
    assert 'not fit to be learned from' in capsys.readouterr().out


@pytest.mark.parametrize('task, metric', [('faster_rcnn', 'coco/bbox_mAP'), ('pspnet', 'mIoU')])
def test_untrained_detectors_and_segmenters_are_at_chance(in_digits, tmp_path, task, metric):
    shown = preflight(small(DISTILLED[task], tmp_path), 10)
    [check] = shown.teachers
    assert check.scores.metric == metric and check.findings[-1].level == 'chance' and not shown.passed


def test_detections_are_judged_on_the_images_that_were_seen(in_digits, tmp_path):
    cfg = small(DISTILLED['faster_rcnn'], tmp_path)
    init_default_scope('mmdet')
    truth: dict = {}
    for box in json.loads(Path(cfg.val_evaluator.ann_file).read_text())['annotations']:
        x, y, width, height = box['bbox']
        truth.setdefault(box['image_id'], []).append(([x, y, x + width, y + height], box['category_id']))
    ids = sorted({category for boxes in truth.values() for _, category in boxes})

    def perfect(batch):
        for sample in batch['data_samples']:
            boxes, labels = zip(*truth[sample.img_id])
            sample.pred_instances = InstanceData(bboxes=torch.tensor(boxes), scores=torch.ones(len(boxes)),
                                                 labels=torch.tensor([ids.index(label) for label in labels]))
        return batch['data_samples']

    # Three of ten images, in groups of one: each alone is right.
    scores = ValidationData(cfg.val_dataloader, cfg.val_evaluator, 3).score(dict(perfect=perfect))
    assert scores == ('coco/bbox_mAP', 3, dict(perfect=[1.0, 1.0, 1.0]))


def test_segmentations_are_judged(in_digits, tmp_path):
    cfg = small(DISTILLED['pspnet'], tmp_path)
    init_default_scope('mmseg')

    def predict(batch, shift):
        for sample in batch['data_samples']:
            sample.pred_sem_seg = PixelData(data=(sample.gt_sem_seg.data + shift) % 19)
        return batch['data_samples']

    data = ValidationData(cfg.val_dataloader, cfg.val_evaluator, 4)
    assert len(data.classes) == 19
    scores = data.score(dict(right=lambda batch: predict(batch, 0), wrong=lambda batch: predict(batch, 1)))
    assert (scores.metric, scores.mean('right'), scores.mean('wrong')) == ('mIoU', 100, 0)


@pytest.mark.parametrize('make, classes', [(classifier, 10), (detector, 10), (segmenter, 19)])
def test_numbers_of_classes(make, classes):
    assert num_classes(build(make())) == classes


def test_clearly_better_is_beyond_noise():
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 1000, 10))
    assert np.mean([clearly_better(a, b) for a, b in zip(*(0.5 + noise))]) < 0.02
    assert all(clearly_better(a + 0.4, b) for a, b in zip(*(0.5 + noise)))
    assert not clearly_better([0.505] * 10, [0.5] * 10), 'a difference too small to matter'
    assert not clearly_better([0.0] * 4, [0.0] * 4)


def test_a_file_of_something_else_is_said_to_be():
    missing, foreign = tuple(f'backbone.a{i}' for i in range(9)), tuple(f'encoder.z{i}' for i in range(9))
    assert find_renaming(missing, foreign) is None
    assert 'another architecture' in explain_load(LoadReport('a.pth', 0, missing, foreign, ()))[0]
    assert explain_load(LoadReport('a.pth', 7, ('head.fc.bias',), (), ())) == [
        "The file lacks a part of the network, such as 'head.fc.bias'."]
    assert 'another number of classes' in explain_load(LoadReport(
        'a.pth', 98, (), (), ('head.fc.weight: file [4, 8], model [10, 8]',)))[0]
    assert explain_load(LoadReport('a.pth', 9, (), ('x',), ())) == []


def checked(tmp_path, checkpoint=None, hook=None, **options):
    """A training of the digit classifier with, or without, a check of its teacher."""
    options = {'train_cfg__max_epochs': 1, 'train_dataloader__num_workers': 0, 'train_cfg__val_interval': 9,
               'train_dataloader__num_batch_per_epoch': 2} | options
    cfg = small(DISTILLED['classification'], tmp_path, **options)
    cfg.model.teacher.checkpoint = checkpoint
    # ExactResumeHook would seed every iteration anew.
    cfg.custom_hooks = [other for other in cfg.custom_hooks if 'ExactResume' not in other.type]
    if hook is not None:
        cfg.custom_hooks.append(dict(type='mmfeatdistill.TeacherCheckHook', images=20, **hook))
    return cfg


def test_training_is_refused_with_a_teacher_at_chance(in_digits, tmp_path):
    with pytest.raises(ConfigError, match='model.teacher: .*at chance level on this data.*allow_chance=True'):
        train(checked(tmp_path, hook=dict()))
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.slow
def test_training_goes_on_as_if_there_had_been_no_check(in_digits, tmp_path):
    with_check = train(checked(tmp_path / 'with', hook=dict(allow_chance=True)))
    without = train(checked(tmp_path / 'without'))
    for (name, first), second in zip(with_check.model.state_dict().items(), without.model.state_dict().values()):
        assert torch.equal(first, second), name


def test_a_resumed_training_is_not_checked_again(in_digits, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(teacher_check_hook, 'check_teachers', lambda *args: calls.append(args) or [])
    for epochs in (1, 2):
        train(checked(tmp_path, hook=dict(), train_cfg__max_epochs=epochs, resume=True))
    assert len(calls) == 1 and calls[0][2] == 20


def test_a_good_teacher_is_accepted_by_the_hook(cfg):
    init_default_scope('mmpretrain')
    runner = SimpleNamespace(model=build(cfg.model), cfg=cfg, iter=0)
    TeacherCheckHook(images=20).before_train(runner)
    runner.model.teachers[0].model.data_preprocessor.to_rgb = False
    with pytest.raises(ConfigError, match='model.teacher: .*channels are in the wrong order'):
        TeacherCheckHook(images=20, allow_chance=True).before_train(runner)
    TeacherCheckHook().before_train(SimpleNamespace(model=build(color_classifier()), cfg=cfg, iter=0))
    with pytest.raises(ConfigError, match='not built from a complete config'):
        TeacherCheckHook().before_train(SimpleNamespace(model=runner.model, cfg=Config(), iter=0))
    with pytest.raises(ConfigError, match='TeacherCheckHook.images: expected a number of at least 10, got 3'):
        TeacherCheckHook(images=3)


def test_a_student_alone_has_nothing_to_look_at():
    with pytest.raises(ConfigError, match="model: .* is no distillation config: expected .* got 'ImageClassifier'"):
        preflight(Config(dict(default_scope='mmpretrain', model=classifier())))
