"""Every wrong config fails when it is built, and says where, what was given and what would do.

Each row: a name, a change to a good config, and what the message must hold; it begins with the first of these.
"""
from types import SimpleNamespace

import pytest
import torch
from mmengine import registry as root
from mmengine.config import Config

from mmfeatdistill.distillers import FeatureDistiller
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.hooks import ObjectiveScheduleHook
from tests.models import build, classifier, detector, match, segmenter, transformer

GOOD = dict(student=detector, teacher=lambda: dict(model=detector(16, 32), checkpoint=None),
            objectives=lambda: dict(fpn=match('neck')))


def good() -> Config:
    return Config({name: make() for name, make in GOOD.items()})


def fpn(**options):
    """Changes to the objective; None removes a key."""
    def change(cfg, files):
        for name, value in options.items():
            cfg.objectives.fpn.pop(name, None)
            if value is not None:
                cfg.objectives.fpn[name] = value
    return change


def taps(*entries):
    return fpn(taps=list(entries))


def objectives(value):
    def change(cfg, files):
        cfg.objectives = value
    return change


def teacher(**options):
    def change(cfg, files):
        cfg.teacher = {
            name: files.get(value, value) if isinstance(value, str) else value for name, value in options.items()}
    return change


def fitting(**options):
    """A teacher that is right but for these options."""
    return teacher(**{**dict(model=classifier(16), checkpoint=None), **options})


def teachers(value):
    def change(cfg, files):
        cfg.teacher = value
    return change


def student(make):
    def change(cfg, files):
        cfg.student = make()
    return change


def student_with(**options):
    def change(cfg, files):
        cfg.student.update(options)
    return change


def both(first, second):
    return lambda cfg, files: (first(cfg, files), second(cfg, files))


FPN = 'model.objectives.fpn'
ROWS = [
    # taps
    ('tap that does not exist', taps('decoder'),
     [f'{FPN}.taps: ', "student has no module 'decoder'", 'It has: data_preprocessor, backbone, neck']),
    ('tap misspelt', taps('nekc'), [f'{FPN}.taps: ', "no module 'nekc'", "Did you mean 'neck'?"]),
    ('tap misspelt on the teacher side', taps(dict(student='neck', teacher='neckk')),
     [f'{FPN}.taps: ', "teacher has no module 'neckk'", "Did you mean 'neck'?"]),
    ('tap one block too deep', taps('backbone.layer4.7'), [f'{FPN}.taps: ', "'backbone.layer4' has: 0, 1"]),
    ('tap item out of range', taps('neck[5]'), [f'{FPN}.taps: ', "'neck[5]' selects none of the 5 feature(s)"]),
    ('tap slice out of range', taps('neck[7:]'), [f'{FPN}.taps: ', "'neck[7:]' selects none of the 5"]),
    ('tap grammar', taps('neck(0)'), [f'{FPN}: ', "'neck(0)' is no tap", "'module.path[1:4]'"]),
    ('tap of a wrong type', taps(3), [f'{FPN}: ', "a tap is a string such as 'neck'", 'got 3']),
    ('tap pair with an unknown side', taps(dict(student='neck', tutor='neck')),
     [f'{FPN}: ', "expected dict(student='...', teacher='...')", "['student', 'tutor']"]),
    ('tap pair with one side', taps(dict(student='neck')), [f'{FPN}: ', "['student']"]),
    ('taps empty', taps(), [f'{FPN}: ', 'taps: is empty', "['neck']"]),
    ('taps missing', fpn(taps=None), [f'{FPN}: ', "needs 'taps', which is missing"]),
    ('taps as a string', fpn(taps='neck'), [f'{FPN}: ', "taps: expected a list such as ['neck'], got 'neck'"]),
    ('taps as a dict', fpn(taps=dict(student='neck', teacher='neck')), [f'{FPN}: ', 'taps: expected a list']),
    ('tap inside the RoI head', taps('roi_head.bbox_head'), [f'{FPN}.taps: ', 'for one image', 'RoI heads']),
    ('tap of what runs only in the loss', taps('rpn_head.loss_cls'),
     [f'{FPN}.taps: ', "'rpn_head.loss_cls' exists but did not run", 'list_taps.py']),
    ('another number of features', taps(dict(student='neck', teacher='backbone')),
     [f'{FPN}.taps: ', "'neck' gives 5 feature(s) and the teacher's 'backbone' gives 4", 'neck[:4]']),
    ('a vector and a map', both(teachers(dict(model=classifier(16), checkpoint=None)),
                                taps(dict(student='backbone[3]', teacher='neck'))),
     [f'{FPN}.taps: ', 'one feature is a vector and the other a map', 'before the pooling']),
    ('a name that is a part of the student', objectives(dict(neck=match('neck'))),
     ['model.objectives.neck: ', 'is the name of a part of the student', "'neck_match'"]),
    ('tokens that do not meet a map',
     both(teachers(dict(model=transformer(), checkpoint=None)),
          taps(dict(student='backbone[3]', teacher='backbone.layers.1'))),
     [f'{FPN}.taps: ', '17 positions, and tokens cannot be resized', "out_type='featmap'"]),
    # loss, connector
    ('loss missing', fpn(loss=None), [f'{FPN}: ', "needs 'loss', which is missing"]),
    ('loss unknown', fpn(loss=dict(type='SquaredErorr')),
     [f'{FPN}.loss.type: ', "no 'SquaredErorr'", "Did you mean 'SquaredError'?"]),
    ('loss as a string', fpn(loss='SquaredError'), [f'{FPN}.loss: ', "expected a dict with a 'type'", 'SquaredError']),
    ('loss without a type', fpn(loss=dict(loss_weight=1.)), [f'{FPN}.loss: ', "expected a dict with a 'type'"]),
    ('loss with an unknown key', fpn(loss=dict(type='SquaredError', weight=1.)),
     [f'{FPN}.loss.weight: ', "there is 'loss_weight'", "Did you mean 'loss_weight'?"]),
    ('connector unknown', fpn(connector=dict(type='ChanelMLP')),
     [f'{FPN}.connector.type: ', "Did you mean 'ChannelMLP'?"]),
    ('connector with an unknown key', fpn(connector=dict(type='ChannelMLP', hidden_width=3)),
     [f'{FPN}.connector.hidden_width: ', "there is 'hidden_channels'"]),
    ('connector with a wrong value', fpn(connector=dict(type='ChannelMLP', hidden_channels=0)),
     [f'{FPN}.connector: ', 'hidden_channels: expected a positive integer, got 0']),
    ('width given by hand', fpn(connector=dict(type='Conv1x1', student_shape=(16, 8, 8))),
     [f'{FPN}.connector.student_shape: ', 'is found by itself', 'remove it']),
    ('no connector, unequal widths', fpn(connector=None),
     [f'{FPN}.connector: ', 'student feature has 16 channels and the teacher feature 32', "dict(type='Conv1x1')"]),
    # objectives
    ('no objectives', objectives({}), ['model.objectives: is empty', "fpn=dict(type='FeatureMatch'"]),
    ('all objectives removed', objectives(dict(fpn=None)), ['model.objectives: is empty']),
    ('objectives as a list', objectives([match('neck')]),
     ['model.objectives: expected a dict of named objectives', "dict(fpn=dict(type='FeatureMatch', ...))"]),
    ('objective without a name', objectives(match('neck')),
     ['model.objectives: each objective needs a name', "type='FeatureMatch'"]),
    ('objective with a dot in its name', objectives({'fpn.p3': match('neck')}),
     ['model.objectives.fpn.p3: cannot be used as a name', "'fpn_p3_match'"]),
    ('objective named like a method', objectives(dict(keys=match('neck'))),
     ['model.objectives.keys: cannot be used as a name', "'keys_match'"]),
    ('objective as a string', objectives(dict(fpn='FeatureMatch')),
     [f"{FPN}: expected a dict with a 'type', got 'FeatureMatch'"]),
    ('objective unknown', fpn(type='FeatureMach'), [f'{FPN}.type: ', "Did you mean 'FeatureMatch'?"]),
    ('a loss in place of an objective', objectives(dict(fpn=dict(type='SquaredError'))),
     [f"{FPN}.type: 'SquaredError' is no objective", "dict(type='FeatureMatch'"]),
    ('objective with an unknown key', fpn(conector=dict(type='Conv1x1')),
     [f'{FPN}.conector: ', "Did you mean 'connector'?"]),
    ('one of two objectives is wrong', objectives(dict(good=match('neck'), fpn=match('nekc'))),
     [f'{FPN}.taps: ', "Did you mean 'neck'?"]),
    ('one of two objectives reads too much', objectives(dict(good=match('neck'), fpn=match('neck[5]'))),
     [f'{FPN}.taps: ', "'neck[5]' selects none"]),
    ('one of two objectives is wrong for the teacher',
     objectives(dict(good=match('neck'), fpn=match(dict(student='neck', teacher='rpn_head.loss_cls')))),
     [f'{FPN}.taps: ', "teacher: 'rpn_head.loss_cls' exists but did not run"]),
    # teacher
    ('teacher of a wrong type', teachers(3), ['model.teacher: expected a config name or a dict, got 3']),
    ('no teacher at all', teachers(None), ['model.teacher: expected a config name or a dict, got None']),
    ('teachers as an empty list', teachers([]), ['model.teacher: the list is empty']),
    ('neither config nor model', teacher(checkpoint=None),
     ["model.teacher: give either 'config'", "or 'model'", 'got neither']),
    ('both config and model', fitting(config='mmdet::a.py'), ['model.teacher: give either', 'got both']),
    ('teacher with an unknown key', fitting(ckpt='a.pth'), ['model.teacher.ckpt: there is no such option']),
    ('teacher with a near key', fitting(checkpont='a.pth'),
     ['model.teacher.checkpont: ', "Did you mean 'checkpoint'?"]),
    ('second teacher wrong', teachers([dict(model=classifier(), checkpoint=None), dict(config='a.py')]),
     ['model.teacher[1].config: ', "no config file 'a.py'"]),
    ('no such config file', teacher(config='configs/teacher.py', checkpoint=None),
     ["model.teacher.config: there is no config file 'configs/teacher.py'", 'looked in']),
    ('no such stock config', teachers('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_voc.py'),
     ['model.teacher.config: mmdet ships no config', "Did you mean 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'"]),
    ('no such zoo model', teachers('resnet18_8xb32_in2k'),
     ['model.teacher.config: ', 'nor a zoo model of mmdet, mmseg, mmpretrain', "Did you mean 'resnet18_8xb32_in1k'"]),
    ('library not installed', teachers('mmyolo::yolov5/yolov5_s.py'),
     ["model.teacher.config: 'mmyolo' is not installed", 'pip install']),
    ('library misspelt', teachers('mmdett::retinanet/retinanet_r50_fpn_1x_coco.py'),
     ["model.teacher.config: 'mmdett' is not installed", "Did you mean 'mmdet'?"]),
    ('teacher model without a type', fitting(model=dict(depth=18)),
     ["model.teacher: expected a model config with a 'type'", "'depth': 18"]),
    ('teacher model of an unknown type', fitting(model=dict(type='mmdet.FasterRCN')), ['model.teacher: ', 'FasterRCN']),
    # checkpoint
    ('checkpoint not given for a model', lambda cfg, files: cfg.teacher.pop('checkpoint'),
     ['model.teacher.checkpoint: is missing; give a path, a URL, or None']),
    ('checkpoint not given for a file', teacher(config='teacher.py'),
     ['model.teacher.checkpoint: is missing; give a path']),
    ("'zoo' for a file", teacher(config='teacher.py', checkpoint='zoo'),
     ["model.teacher.checkpoint: 'zoo' means the weights that a stock config's metafile names",
      'is no config of an installed MM library']),
    ("'zoo' for an inline model", fitting(checkpoint='zoo'), ["model.teacher.checkpoint: 'zoo' means the weights"]),
    ("'zoo' for a part of a config", teacher(config='mmdet::_base_/models/faster-rcnn_r50_fpn.py'),
     ['model.teacher.checkpoint: the zoo of mmdet has no weights', 'faster-rcnn_r50_fpn']),
    ("'zoo' for a config of several models",
     teacher(config='mmpretrain::convnext/convnext-base_32xb128_in1k-384px.py'),
     ['model.teacher.checkpoint: the zoo of mmpretrain has several weights', "Give the name of one model as 'config'"]),
    ('checkpoint of a wrong type', fitting(checkpoint=3),
     ['model.teacher.checkpoint: expected a path, a URL', 'got 3']),
    ('no such checkpoint', fitting(checkpoint='work_dirs/a.pth'),
     ["model.teacher.checkpoint: there is no checkpoint 'work_dirs/a.pth'", 'looked in']),
    ('checkpoint of another width', fitting(checkpoint='narrow.pth'),
     ['model.teacher.checkpoint: does not fit the teacher', 'of another shape', 'model [16', 'strict=False']),
    ('checkpoint of another model', fitting(checkpoint='other.pth'),
     ['model.teacher.checkpoint: does not fit', 'missing (', 'unexpected (', 'strict=False']),
    ('checkpoint without weights', fitting(checkpoint='log.pth'),
     ['model.teacher.checkpoint: ', "holds no weights: expected a 'state_dict'", "['epoch']"]),
    ('damaged checkpoint', fitting(checkpoint='damaged.pth'), ['model.teacher.checkpoint: ', 'cannot be read']),
    # several teachers
    ('no such teacher', fpn(teacher=1), [f'{FPN}: ', 'there is no teacher 1; there are 1, counted from 0']),
    ('teacher position of a wrong type', fpn(teacher='first'),
     [f'{FPN}: ', "teacher: expected the position of a teacher (0, 1, ...), got 'first'"]),
    ('teacher that nothing reads',
     both(teachers([dict(model=detector(16, 32), checkpoint=None)] * 2), fpn(teacher=0)),
     ['model.teacher[1]: no objective reads it', 'teacher=1']),
    # student
    ('student without a type', student(lambda: dict(depth=18)),
     ["model.student: expected a model config", "['depth']"]),
    ('student of an unknown type', student_with(type='FasterRCN'), ['model.student: ', 'FasterRCN']),
    ('student with an unknown key', student_with(nek=dict()), ['model.student: ', "'nek'"]),
    ('student as a name', student(lambda: 'mmdet::retinanet'),
     ['model.student: expected a config of an mmengine BaseModel', 'mmdet::retinanet']),
    ('student that is no whole model', student(lambda: detector().backbone | dict(_scope_='mmdet')),
     ['model.student: expected a config of an mmengine BaseModel', 'ResNet']),
    ('student whose parts do not fit', lambda cfg, files: cfg.student.neck.update(in_channels=[8, 16, 32, 63]),
     [f'{FPN}.taps: ', "student: 'neck' exists but did not run"]),
    ('student that its library refuses', lambda cfg, files: cfg.student.neck.update(num_outs=2),
     ['model.student: AssertionError at ', 'num_outs', 'fpn.py']),
    # the distiller's own keys
    ('key of the student beside it', lambda cfg, files: cfg.update(backbone=dict(depth=18)),
     ["model: FeatureDistiller has no 'backbone'", "'student', 'teacher' and 'objectives'", 'model.student']),
    ('key misspelt', lambda cfg, files: cfg.update(objectivs=cfg.objectives),
     ["model: FeatureDistiller has no 'objectivs'", "'objectives'"]),
    ('objectives missing', lambda cfg, files: cfg.pop('objectives'),
     ['model.objectives: expected a dict of named objectives', 'got None']),
    ('teacher missing', lambda cfg, files: cfg.pop('teacher'), ['model.teacher: expected a config name', 'got None']),
    ('student missing', lambda cfg, files: cfg.pop('student'), ['model.student: expected a config', 'got None']),
]


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Configs and checkpoints that rows mention by name."""
    folder = tmp_path_factory.mktemp('bad_configs')
    (folder / 'teacher.py').write_text(
        "_base_ = ['mmpretrain::_base_/models/resnet18.py']\ndefault_scope = 'mmpretrain'\n")
    torch.save(build(classifier(8)).state_dict(), folder / 'narrow.pth')
    torch.save(build(segmenter(8)).state_dict(), folder / 'other.pth')
    torch.save(dict(epoch=3), folder / 'log.pth')
    (folder / 'damaged.pth').write_bytes(b'<html>')
    return {path.name: str(path) for path in folder.iterdir()}


@pytest.mark.parametrize('change, words', [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_wrong_configs(change, words, files):
    cfg = good()
    change(cfg, files)
    with pytest.raises(ConfigError) as error:
        root.MODELS.build(dict(cfg._cfg_dict, type='mmfeatdistill.FeatureDistiller'))
    message = str(error.value)
    assert message.startswith(words[0]), message
    assert all(word in message for word in words), message


def test_the_good_config_is_good():
    assert isinstance(FeatureDistiller(**good()._cfg_dict), FeatureDistiller)


HOOK = "custom_hooks.ObjectiveScheduleHook('fpn')"


@pytest.mark.parametrize('options, words', [
    (dict(decay_begin=5), [f'{HOOK}.stop: ', 'the decay that begins at 5 needs a later stop, got None']),
    (dict(decay_begin=5, stop=5), [f'{HOOK}.stop: ', 'needs a later stop, got 5']),
    (dict(decay_begin=5, stop=2), [f'{HOOK}.stop: ', 'needs a later stop, got 2']),
    (dict(warmup=-1), [f'{HOOK}.warmup: ', 'expected a number of steps, got -1']),
    (dict(warmup=0.5), [f'{HOOK}.warmup: ', 'got 0.5']),
    (dict(stop='end'), [f'{HOOK}.stop: ', "got 'end'"]),
    (dict(decay='exponential', stop=3), [f'{HOOK}.decay: ', "expected 'linear' or 'cosine', got 'exponential'"])])
def test_schedules_that_contradict_themselves(options, words):
    with pytest.raises(ConfigError) as error:
        root.HOOKS.build(dict(type='mmfeatdistill.ObjectiveScheduleHook', objective='fpn', **options))
    assert str(error.value).startswith(words[0])
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize('model, words', [
    (SimpleNamespace(objectives=dict(fpn=1, head=2)), ["there is no 'fnp'", "['fpn', 'head']", "Did you mean 'fpn'?"]),
    (SimpleNamespace(), ["there is no 'fnp'", 'has []'])])
def test_a_schedule_for_no_objective(model, words):
    runner = SimpleNamespace(model=model, epoch=0, iter=0)
    with pytest.raises(ConfigError) as error:
        ObjectiveScheduleHook('fnp').before_train(runner)
    assert str(error.value).startswith("custom_hooks.ObjectiveScheduleHook('fnp').objective: ")
    assert all(word in str(error.value) for word in words), error.value
