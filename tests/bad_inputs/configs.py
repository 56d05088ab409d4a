"""Configs that cannot be built: each row names a change to a good config, and what the message must hold."""
from functools import partial
from types import SimpleNamespace

from mmengine import registry as root
from mmengine.config import Config
from torch.utils.data import IterableDataset

from mmfeatdistill.engine.hooks import StatisticsHook
from tests.helpers.models import classifier, detector, match

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
        cfg.teacher = {name: files.get(value, value) if isinstance(value, str) else value
                       for name, value in options.items()}
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
CHANGES = [
    # taps
    ('tap that does not exist', taps('decoder'),
     [f'{FPN}.taps: ', "student has no module 'decoder'", 'It has: data_preprocessor, backbone, neck']),
    ('tap misspelt', taps('nekc'), [f'{FPN}.taps: ', "no module 'nekc'", "Did you mean 'neck'?"]),
    ('tap misspelt on the teacher side', taps(dict(student='neck', teacher='neckk')),
     [f'{FPN}.taps: ', "teacher has no module 'neckk'", "Did you mean 'neck'?"]),
    ('tap one block too deep', taps('backbone.layer4.7'), [f'{FPN}.taps: ', "'backbone.layer4' has: 0, 1"]),
    ('tap item out of range', taps('neck[5]'), [f'{FPN}.taps: ', "'neck[5]' selects none of the 5 feature(s)"]),
    ('tap slice out of range', taps('neck[7:]'), [f'{FPN}.taps: ', "'neck[7:]' selects none of the 5"]),
    ('tap grammar', taps('neck(0)'), [f'{FPN}: ', "'neck(0)' is an invalid tap", "'module.path[1:4]'"]),
    ('tap of a wrong type', taps(3), [f'{FPN}: ', "a tap is a string such as 'neck'", 'got 3']),
    ('tap pair with an unknown side', taps(dict(student='neck', tutor='neck')),
     [f'{FPN}: ', "expected dict(student='...', teacher='...')", "['student', 'tutor']"]),
    ('tap pair with one side', taps(dict(student='neck')), [f'{FPN}: ', "['student']"]),
    ('taps empty', taps(), [f'{FPN}: ', 'taps: is empty', "['neck']"]),
    ('taps missing', fpn(taps=None), [f'{FPN}: ', "needs 'taps', which is missing"]),
    ('taps as a number', fpn(taps=3), [f'{FPN}: ', "taps: expected a list such as ['neck'], got 3"]),
    ('tap inside the RoI head', taps('roi_head.bbox_head'), [f'{FPN}.taps: ', 'for one image', 'RoI heads']),
    ('tap of what runs only in the loss', taps('rpn_head.loss_cls'),
     [f'{FPN}.taps: ', "'rpn_head.loss_cls' exists but did not run", 'list_taps.py']),
    ('levels of other strides', taps(dict(student='neck[4]', teacher='backbone')),
     [f'{FPN}.taps: ', "'neck[4]' gives features of stride 64, the teacher's 'backbone' of stride 4, 8, 16, 32",
      'none agree', "dict(student='neck[4]', teacher='backbone[0]')"]),
    ('a vector and a map', both(teachers(dict(model=classifier(16), checkpoint=None)),
                                taps(dict(student='backbone[3]', teacher='neck'))),
     [f'{FPN}.taps: ', 'one feature is a vector and the other a map', 'before the pooling']),
    # loss, connector
    ('loss missing', fpn(loss=None), [f'{FPN}: ', "needs 'loss', which is missing"]),
    ('loss unknown', fpn(loss=dict(type='SquaredErorr')),
     [f'{FPN}.loss.type: ', "no 'SquaredErorr'", "Did you mean 'SquaredError'?"]),
    ('loss as a string', fpn(loss='SquaredError'), [f'{FPN}.loss: ', "expected a dict with a 'type'", 'SquaredError']),
    ('loss without a type', fpn(loss=dict(loss_weight=1.)), [f'{FPN}.loss: ', "expected a dict with a 'type'"]),
    ('loss with an unknown key', fpn(loss=dict(type='SquaredError', weight=1.)),
     [f'{FPN}.loss.weight: ', "there is 'loss_weight'", "Did you mean 'loss_weight'?"]),
    ('loss that is no number', fpn(loss=dict(type='mmdet.L1Loss', reduction='none')),
     [f'{FPN}.loss: expected a loss that gives one number', 'got a tensor of shape (1, 32']),
    ('connector unknown', fpn(connector=dict(type='ChanelMLP')),
     [f'{FPN}.connector.type: ', "Did you mean 'ChannelMLP'?"]),
    ('connector with an unknown key', fpn(connector=dict(type='ChannelMLP', hidden_width=3)),
     [f'{FPN}.connector.hidden_width: ', "there is 'hidden_channels'"]),
    ('connector with a wrong value', fpn(connector=dict(type='ChannelMLP', hidden_channels=0)),
     [f'{FPN}.connector: ', 'hidden_channels: expected a positive integer, got 0']),
    ('width given by hand', fpn(connector=dict(type='Conv1x1', student_shape=(16, 8, 8))),
     [f'{FPN}.connector.student_shape: ', 'is inferred', 'remove it']),
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
     ['model.objectives.fpn.p3: a dot ends the name of an objective in logs', "'fpn_p3'"]),
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
    ('student that is no complete model', student(lambda: detector().backbone | dict(_scope_='mmdet')),
     ['model.student: expected a config of an mmengine BaseModel', 'ResNet']),
    ('student whose parts do not fit', lambda cfg, files: cfg.student.neck.update(in_channels=[8, 16, 32, 63]),
     [f'{FPN}.taps: ', "student: 'neck' exists but did not run"]),
    ('student that its library refuses', lambda cfg, files: cfg.student.neck.update(num_outs=2),
     ['model.student: AssertionError at ', 'num_outs', 'fpn.py']),
    # the distiller's own keys
    ('key of the student next to it', lambda cfg, files: cfg.update(backbone=dict(depth=18)),
     ["model: FeatureDistiller has no 'backbone'", "'student', 'teacher' and 'objectives'", 'model.student']),
    ('key misspelt', lambda cfg, files: cfg.update(objectivs=cfg.objectives),
     ["model: FeatureDistiller has no 'objectivs'", "'objectives'"]),
    ('objectives missing', lambda cfg, files: cfg.pop('objectives'),
     ['model.objectives: expected a dict of named objectives', 'got None']),
    ('teacher missing', lambda cfg, files: cfg.pop('teacher'), ['model.teacher: expected a config name', 'got None']),
    ('student missing', lambda cfg, files: cfg.pop('student'), ['model.student: expected a config', 'got None']),
    # options of the wrong type
    ('weight as text', fpn(loss=dict(type='SquaredError', loss_weight='5e-7')),
     [f"{FPN}.loss.loss_weight: expected a number, got '5e-7'"]),
    ('weight that is not a number', fpn(loss=dict(type='SquaredError', loss_weight=float('nan'))),
     [f'{FPN}.loss.loss_weight: expected a number, got nan']),
    ('weight that is infinite', fpn(loss=dict(type='SquaredError', loss_weight=float('inf'))),
     [f'{FPN}.loss: the loss of one small image is ', 'look at the options of the loss']),
    ('teacher position as a truth value', fpn(teacher=True), [f'{FPN}.teacher: expected an integer or None, got True']),
    ('width as a truth value', fpn(connector=dict(type='ChannelMLP', hidden_channels=True)),
     [f'{FPN}.connector.hidden_channels: expected an integer or None, got True']),
    ('activation as text', fpn(connector=dict(type='Bridge', activated='yes')),
     [f"{FPN}.connector.activated: expected True or False, got 'yes'"]),
    ('share of a mask above 1', fpn(connector=dict(type='MaskedGenerator', mask_ratio=1.5)),
     [f'{FPN}.connector: mask_ratio: must be from 0 to 1, got 1.5']),
    ('share of a mask as text', fpn(connector=dict(type='MaskedGenerator', mask_ratio='0.5')),
     [f"{FPN}.connector.mask_ratio: expected a number, got '0.5'"]),
    ('share of a mask missing', fpn(connector=dict(type='MaskedGenerator')),
     [f"{FPN}.connector: needs 'mask_ratio', which is missing"]),
    ('mask of pixels', fpn(connector=dict(type='MaskedGenerator', mask_ratio=0.5, hide='pixels')),
     [f"{FPN}.connector: hide: expected 'positions' or 'channels', got 'pixels'"]),
    # one thing in place of another
    ('a loss in place of a connector', fpn(connector=dict(type='SquaredError')),
     [f"{FPN}.connector.type: 'SquaredError' cannot be used here", "'student_shape'", "'Conv1x1'"]),
    ('a layer in place of a connector', fpn(connector=dict(type='Conv2d')),
     [f"{FPN}.connector.type: 'Conv2d' cannot be used here", "'Conv1x1'"]),
    ('a connector in place of a loss', fpn(loss=dict(type='Conv1x1')), [f'{FPN}.loss: needs ', "'student_shape'"]),
    ('an objective in place of a loss', fpn(loss=match('neck')),
     [f'{FPN}.loss.type: FeatureMatch is an objective', 'model.objectives', "dict(type='SquaredError')"]),
    ('connectors as a list', fpn(connector=[dict(type='Conv1x1')]),
     [f"{FPN}.connector: expected a dict with a 'type'"]),
    ('loss of a library that is not there', fpn(loss=dict(type='mmfoo.Loss')),
     [f"{FPN}.loss.type: there is no 'mmfoo.Loss'", "'mmdet.MyLoss'"]),
    ('type that is a number', fpn(loss=dict(type=3)), [f'{FPN}.loss.type: expected the name of a class', 'got 3']),
    ('objective whose name is a number', objectives({3: match('neck')}),
     ['model.objectives: each objective needs a name', 'got 3']),
    ('objective whose name is empty', objectives({'': match('neck')}),
     ['model.objectives: each objective needs a name', "got ''"]),
    # tap grammar
    ('tap slice with a step', taps('neck[0:4:2]'),
     [f'{FPN}: ', "'neck[0:4:2]' is an invalid tap", "'module.path[1:4]'"]),
    ('tap with a space', taps('neck '), [f'{FPN}: ', "'neck ' is an invalid tap"]),
    ('tap that is empty', taps(''), [f'{FPN}: ', "'' is an invalid tap"]),
    ('tap with two sides', taps('neck:in:pre'), [f'{FPN}: ', "'neck:in:pre' is an invalid tap"]),
    ('tap of the entire model', taps('model.neck'),
     [f'{FPN}.taps: ', "no module 'model.neck'", 'It has: data_preprocessor, backbone, neck']),
    ('tap of a call that is not made', taps('rpn_head.rpn_cls:each[9]'),
     [f'{FPN}.taps: ', "'rpn_head.rpn_cls:each[9]' selects none of the 5"]),
]


STAGES = [f'backbone.layer{stage}:pre' for stage in (1, 2, 3, 4)]
O = 'model.objectives.o'  # noqa: E741
OTHER_CLASSES = classifier(16)
OTHER_CLASSES['head'].num_classes = 5
FEWER_OBJECTS = detector(16, 32)
FEWER_OBJECTS.roi_head.bbox_head.num_classes = 5


def classification(taught_by=None, /, **objective):
    """A classifier with one objective."""
    return dict(student=classifier(), teacher=taught_by or dict(model=classifier(16), checkpoint=None),
                objectives=dict(o=objective))


def detection(taught_by=None, /, **objective):
    """A detector with one objective."""
    return dict(student=detector(), teacher=taught_by or dict(model=detector(16, 32), checkpoint=None),
                objectives=dict(o=objective))


def of(make, **defaults):
    """What makes a config with an objective that is right but for the given options."""
    return lambda taught_by=None, /, **options: make(taught_by, **{**defaults, **options})


lsh = of(classification, type='LSH', taps=['head.fc:in'], connector=dict(type='Conv1x1'))
ofd = of(classification, type='OFD', taps=STAGES)
fcfd = of(classification, type='FCFD', taps=STAGES, output='head.fc')
ft = of(classification, type='FT', taps=['backbone'])
dkd = of(classification, type='Decoupled', taps=['head.fc'])
feed = of(classification, type='FeatureMatch', taps=['backbone'], loss=dict(type='FactorTransfer'),
          connector=dict(type='Translator'))
logits = of(classification, type='FeatureMatch', taps=['head.fc'])
box = of(detection, type='LSHRoI', connector=dict(type='Conv1x1'))
heads = of(detection, type='FCFDBoxHead', taps=['neck'])


def accelerated(options, **teacher_options):
    return feed(dict(model=classifier(16), checkpoint=None, acceleration=options, **teacher_options))


METHODS = [
    # losses of logits
    ('tau 0', logits(loss=dict(type='KLDivergence', tau=0)), [f'{O}.loss: tau must be positive, got 0']),
    ('tau infinite', logits(loss=dict(type='KLDivergence', tau=float('inf'))),
     [f'{O}.loss: ', 'look at the options of the loss']),
    ('tau as text', logits(loss=dict(type='DIST', tau='4')), [f"{O}.loss.tau: expected a number, got '4'"]),
    ('margin negative', feed(loss=dict(type='ActivationBoundary', margin=-1.)),
     [f'{O}.loss: margin must not be negative, got -1']),
    ('logits of another number of classes', logits(dict(model=OTHER_CLASSES, checkpoint=None),
                                                   loss=dict(type='KLDivergence')),
     [f'{O}.taps: ', 'are what they predict, with 10 and 5 channels: other classes', 'Match features']),
    ('a loss of maps on vectors', logits(loss=dict(type='ChannelWiseDivergence')),
     [f'{O}.loss: student and teacher must have the shape (N, C, H, ...), got (1, 10) and (1, 10)']),
    ('attention of vectors', logits(loss=dict(type='AttentionTransfer')), [f'{O}.loss: ', '(N, C, H, ...)']),
    # LSH
    ('LSH, bias', lsh(bias='middle'), [f'{O}: bias: ', "expected 'median', 'mean' or 'zero', got 'middle'"]),
    ('LSH, kind', lsh(kind='cosine'), [f"{O}: kind: expected 'bce', 'l1' or 'l2', got 'cosine'"]),
    ('LSH, hashes', lsh(hashes=0), [f'{O}: hashes: expected a positive number, got 0']),
    ('LSH, std', lsh(std=0), [f"{O}: std: expected 'classifier' or a positive number, got 0"]),
    ('LSH, seed', lsh(seed='x'), [f'{O}: seed: expected an integer of at most 64 bits', "got 'x'"]),
    ('LSH, seed too great', lsh(seed=2**70), [f'{O}: seed: expected an integer of at most 64 bits']),
    ('LSH, truth value', lsh(with_l2='yes'), [f"{O}.with_l2: expected True or False, got 'yes'"]),
    ('LSH, widths', lsh(connector=None), [f'{O}.connector: hashing compares vectors of one width', '2FC', 'Conv1x1']),
    ('LSH, no classifier', lsh(taps=['neck']), [f"{O}.std: 'neck' is not the input of the teacher's classifier",
                                                "classifier='head.fc'"]),
    ('LSH, wrong classifier', lsh(classifier='backbone'), [f"{O}.std: the teacher's 'backbone' is no classifier"]),
    ('LSH of right images of maps', lsh(taps=['backbone.layer4'], classifier='head.fc', only_correct=True),
     [f'{O}.only_correct: images count or do not']),
    # LSH of boxes
    ('LSH of boxes, bias', box(bias='median'), [f"{O}: bias: 'median' is that of features", "only 'zero' is possible"]),
    ('LSH of boxes, taps', box(taps=['neck']), [f'{O}.taps: there is no such option', "'hashes'"]),
    ('LSH of boxes of a classifier', classification(type='LSHRoI'),
     [f"{O}.taps: student has no module 'roi_head.bbox_head.fc_cls'"]),
    ('LSH of boxes, a classifier as teacher', box(dict(model=classifier(16), checkpoint=None)),
     [f'{O}: ImageClassifier has no roi_head', 'a two-stage detector is needed']),
    # OFD
    ('OFD, stage weights', ofd(stage_weights=[1, 2]), [f'{O}.stage_weights: expected 4 numbers', 'got 2']),
    ('OFD, stage weights as text', ofd(stage_weights='1111'), [f'{O}: stage_weights: expected a list of numbers']),
    ('OFD, images', ofd(margin_images=0), [f'{O}: margin_images: expected a positive number, got 0']),
    ('OFD, weight', ofd(loss_weight=None), [f'{O}.loss_weight: expected a number, got None']),
    ('OFD, several features of a tap', detection(type='OFD', taps=['backbone:pre']),
     [f"{O}.taps: ", "'backbone' gives 4 features, each with an activation of its own", "'backbone.layer4:pre'"]),
    ('OFD, widths', ofd(connector=dict(type='Identity')), [f'{O}.connector: ', "connector=dict(type='Conv1x1')"]),
    # FCFD
    ('FCFD, paths', fcfd(paths=99), [f'{O}.paths: 4 stage(s) give 6 mixed paths here, got 99']),
    ('FCFD, paths as text', fcfd(paths='2'), [f"{O}.paths: expected an integer, got '2'"]),
    ('FCFD, tau', fcfd(tau=0), [f'{O}: tau must be positive, got 0']),
    ('FCFD, weight', fcfd(appearance_weight='x'), [f"{O}.appearance_weight: expected a number, got 'x'"]),
    ('FCFD, no output', classification(type='FCFD', taps=STAGES), [f"{O}: needs 'output', which is missing"]),
    ('FCFD, output', fcfd(output='head.fcc'), [f"{O}.taps: student has no module 'head.fcc'", "'head.fc'"]),
    ('FCFD, order', fcfd(taps=STAGES[::-1]),
     [f"{O}.taps: stages stand in the order of the network, each once, but 'backbone.layer3:pre' does not end after"]),
    ('FCFD, a stage twice', fcfd(taps=STAGES[:1] * 2), [f'{O}.taps: stages stand in the order', 'each once']),
    ('FCFD, several features of a tap', detection(
        type='FCFD', taps=['backbone'], output='roi_head.bbox_head.fc_cls', paths=0),
     [f"{O}.taps: 'backbone' gives 4 features; name a place that gives one", "'backbone.layer4:pre'"]),
    ('FCFD, inside a block', fcfd(taps=['backbone.layer1.0.conv1']),
     [f"{O}.taps: the network cannot be continued from 'backbone.layer1.0.conv1' alone", 'ends of entire stages']),
    ('FCFD, classes', fcfd(dict(model=OTHER_CLASSES, checkpoint=None)),
     [f'{O}.output: the student has 10 classes and the teacher 5']),
    ('FCFD, two teachers', fcfd([dict(model=classifier(16), checkpoint=None)] * 2),
     [f'{O}.teacher: there are 2 teachers; name one by its position']),
    # FCFD of box heads
    ('FCFD of boxes, tau', heads(tau=0), [f'{O}: tau must be positive, got 0']),
    ('FCFD of boxes, levels', heads(taps=['neck[0:2]']), [f'{O}: the RoI extractor reads 4 levels of features, got 2']),
    ('FCFD of boxes, widths', heads(taps=['backbone']),
     [f'{O}: the RoI extractor reads features of 32 channels, got 16, 32, 64, 128', "as 'neck'"]),
    ('FCFD of boxes, weight', heads(box_weight='x'), [f"{O}.box_weight: expected a number, got 'x'"]),
    ('FCFD of boxes, classes', heads(dict(model=FEWER_OBJECTS, checkpoint=None)),
     [f"{O}: the student's box head gives 11 class logits, background included, and the teacher's 6"]),
    ('FCFD of boxes of a classifier', classification(type='FCFDBoxHead', taps=['backbone']),
     [f"{O}.taps: student has no module 'roi_head.bbox_roi_extractor'"]),
    # Factor Transfer, FEED
    ('FT, rate', ft(rate=0), [f'{O}: rate: expected a positive number, got 0']),
    ('FT, rate infinite', ft(rate=float('inf')), [f'{O}: rate: expected a positive number, got inf']),
    ('FT, weight', ft(paraphrase_weight='x'), [f"{O}.paraphrase_weight: expected a number, got 'x'"]),
    ('FT, connector', ft(connector=dict(type='Conv1x1')), [f'{O}.connector: there is no such option', "'rate'"]),
    ('FEED, no such teacher', feed([dict(model=classifier(16), checkpoint=None)] * 2, teacher=2),
     [f'{O}: teacher: there is no teacher 2; there are 2']),
    # decoupled
    ('DKD of maps', dkd(taps=['backbone']), [f"{O}: taps: 'backbone' gives [(1, 64, 2, 2)]", "taps=['head.fc']"]),
    ('DKD, tau', dkd(tau=-1.), [f'{O}: tau must be positive, got -1']),
    ('DKD, beta', dkd(beta=None), [f'{O}.beta: expected a number, got None']),
    ('DKD of a detector', detection(type='Decoupled', taps=['roi_head.bbox_head.fc_cls']),
     [f'{O}: taps: a tap gives 10 rows for one image', "taps=['head.fc']"]),
    ('DKD, classes', dkd(dict(model=OTHER_CLASSES, checkpoint=None)), [f'{O}: ', '(1, 10) and (1, 5)']),
    # teachers
    ('teacher config of a wrong type', feed(dict(config=3, checkpoint=None)),
     ['model.teacher.config: expected a config file', 'got 3']),
    ('teacher model as a name', feed(dict(model='resnet18', checkpoint=None)),
     ["model.teacher: expected a model config with a 'type', got 'resnet18'"]),
    ('teacher that is a part', feed(dict(model=classifier(16).backbone | dict(_scope_='mmpretrain'), checkpoint=None)),
     ['model.teacher: expected the config of a complete model', "got that of 'ResNet'"]),
    ('teacher option that is found', feed(dict(model=classifier(16), checkpoint=None, key='x')),
     ['model.teacher.key: is inferred']),
    ('strict as text', feed(dict(model=classifier(16), checkpoint=None, strict='no')),
     ["model.teacher.strict: expected True or False, got 'no'"]),
    ('batch statistics as text', feed(dict(model=classifier(16), checkpoint=None, batch_statistics='yes')),
     ["model.teacher.batch_statistics: expected True or False, got 'yes'"]),
    ('acceleration as a list', accelerated(['fuse_conv_bn']), ['model.teacher.acceleration: expected a dict']),
    ('acceleration misspelt', accelerated(dict(fuse_conv_bm=True)),
     ['model.teacher.acceleration.fuse_conv_bm: there is no such option', "Did you mean 'fuse_conv_bn'?"]),
    ('acceleration, precision', accelerated(dict(dtype='half')),
     ["model.teacher.acceleration.dtype: expected 'bfloat16' or 'float16'", "got 'half'"]),
    ('acceleration, precisions', accelerated(dict(dtype=['bfloat16'])),
     ["model.teacher.acceleration.dtype: expected 'bfloat16'", "got ['bfloat16']"]),
    ('acceleration, folding as text', accelerated(dict(fuse_conv_bn='yes')),
     ["model.teacher.acceleration.fuse_conv_bn: expected True or False, got 'yes'"]),
    ('acceleration, compile as text', accelerated(dict(compile='max')),
     ['model.teacher.acceleration.compile: expected True, False or a dict', "got 'max'"]),
    ('acceleration, compile option', accelerated(dict(compile=dict(mod='x'))),
     ['model.teacher.acceleration.compile: torch.compile refuses', "'mod'"]),
    ('acceleration and batch statistics', accelerated(dict(fuse_conv_bn=True), batch_statistics=True),
     ['model.teacher.acceleration: needs the running statistics', 'batch_statistics=True']),
    ('acceleration and FCFD', fcfd(dict(model=classifier(16), checkpoint=None, acceleration=dict(fuse_conv_bn=True))),
     ['model.teacher.acceleration: changes what modules of the teacher compute', 'model.objectives.o runs']),
]


def build(cfg):
    return root.MODELS.build(dict(cfg, type='mmfeatdistill.FeatureDistiller'))


def changed(change):
    """Builds the good config after a change."""
    def attempt(files):
        cfg = good()
        change(cfg, files)
        build(cfg._cfg_dict)
    return attempt


def hook(type, **options):
    """Builds a hook."""
    return lambda files: root.HOOKS.build(dict(type=f'mmfeatdistill.{type}', **options))


def started(type, model=None, **options):
    """Builds a hook and starts a training with it."""
    def attempt(files):
        runner = SimpleNamespace(model=model or SimpleNamespace(), epoch=0, iter=0, cfg=Config())
        root.HOOKS.build(dict(type=f'mmfeatdistill.{type}', **options)).before_train(runner)
    return attempt


SCHEDULE = "custom_hooks.ObjectiveScheduleHook('fpn')"
schedule = partial(hook, 'ObjectiveScheduleHook', objective='fpn')
BALANCE = "custom_hooks.BalanceHook('fpn')"
balance = partial(hook, 'BalanceHook', objective='fpn')
INHERIT = 'custom_hooks.InheritTeacherWeightsHook'


def wanting(count):
    """What statistics need of a runner, with a data set of so many images."""
    def attempt(files):
        model = SimpleNamespace(objectives={}, images_wanted=lambda: dict(o=3))
        dataset = [] if count == 0 else _Stream()
        runner = SimpleNamespace(model=model, cfg=Config(), train_dataloader=SimpleNamespace(dataset=dataset))
        StatisticsHook().before_train(runner)
    return attempt


class _Stream(IterableDataset):
    """A data set without a length."""

    def __iter__(self):
        return iter([])


HOOKS = [
    ('schedule, decay without an end', schedule(decay_begin=5),
     [f'{SCHEDULE}.stop: ', 'the decay that begins at 5 needs a later stop, got None']),
    ('schedule, decay that ends at once', schedule(decay_begin=5, stop=5),
     [f'{SCHEDULE}.stop: ', 'needs a later stop, got 5']),
    ('schedule, decay that ends before', schedule(decay_begin=5, stop=2),
     [f'{SCHEDULE}.stop: ', 'needs a later stop, got 2']),
    ('schedule, warm-up negative', schedule(warmup=-1), [f'{SCHEDULE}.warmup: ', 'expected a number of steps, got -1']),
    ('schedule, half a warm-up', schedule(warmup=0.5), [f'{SCHEDULE}.warmup: ', 'got 0.5']),
    ('schedule, stop as text', schedule(stop='end'), [f'{SCHEDULE}.stop: ', "got 'end'"]),
    ('schedule, decay unknown', schedule(decay='exponential', stop=3),
     [f'{SCHEDULE}.decay: ', "expected 'linear' or 'cosine', got 'exponential'"]),
    ('schedule, epochs as text', schedule(by_epoch='no'), [f"{SCHEDULE}.by_epoch: expected True or False, got 'no'"]),
    ('schedule of no objective', started('ObjectiveScheduleHook', SimpleNamespace(objectives=dict(fpn=1, head=2)),
                                         objective='fnp'),
     ["custom_hooks.ObjectiveScheduleHook('fnp').objective: there is no 'fnp'", "['fpn', 'head']",
      "Did you mean 'fpn'?"]),
    ('schedule of a student alone', started('ObjectiveScheduleHook', objective='fnp'),
     ["custom_hooks.ObjectiveScheduleHook('fnp').objective: there is no 'fnp'", 'has []']),
    ('balance, a share in percent', balance(share=11), [f'{BALANCE}.share: expected a number between 0 and 1, got 11']),
    ('balance, beyond all', balance(share=0.9, tolerance=0.2),
     [f'{BALANCE}.tolerance: the band 0.9 +- 0.2 has to lie between 0 and 1']),
    ('balance of norms', balance(share=0.5, measure='norm'),
     [f'{BALANCE}.measure: ', "expected 'gradient' or 'loss', got 'norm'"]),
    ('balance of a part and a loss', balance(share=0.5, measure='loss', watch='neck'),
     [f"{BALANCE}.watch: the gradient on a part of the student is watched; leave out measure='loss'"]),
    ('balance, never', balance(share=0.5, interval=0),
     [f'{BALANCE}.interval: expected a positive number of steps, got 0']),
    ('balance, epochs as text', balance(share=0.5, by_epoch='no'), [f"{BALANCE}.by_epoch: ", "got 'no'"]),
    ('alignment, never', hook('AlignmentHook', interval=0),
     ['custom_hooks.AlignmentHook.interval: expected a positive number of iterations, got 0']),
    ('inherit, a part as a string', hook('InheritTeacherWeightsHook', parts='neck'),
     [f"{INHERIT}.parts: expected a list", "'neck'"]),
    ('inherit, nothing', hook('InheritTeacherWeightsHook', parts=[]), [f'{INHERIT}.parts: expected a list', 'got []']),
    ('inherit, no tap', hook('InheritTeacherWeightsHook', parts=['neck(0)']),
     [f"{INHERIT}.parts: 'neck(0)' is an invalid tap"]),
    ('inherit, teacher as text', hook('InheritTeacherWeightsHook', parts=['neck'], teacher='first'),
     [f'{INHERIT}.teacher: expected the position of a teacher', "got 'first'"]),
    ('inherit without a teacher', started('InheritTeacherWeightsHook', parts=['neck']),
     [f'{INHERIT}.teacher: there is no teacher 0; the model has 0']),
    ('teacher check, images', hook('TeacherCheckHook', images=3),
     ['custom_hooks.TeacherCheckHook.images: expected a number of at least 10, got 3']),
    ('teacher check, chance as text', hook('TeacherCheckHook', allow_chance='no'),
     ["custom_hooks.TeacherCheckHook.allow_chance: expected True or False, got 'no'"]),
    ('teacher check without a config', started('TeacherCheckHook', SimpleNamespace(teachers=[1])),
     ['custom_hooks.TeacherCheckHook: the runner was not built from a complete config']),
    ('statistics without images', wanting(0), ['custom_hooks.StatisticsHook: ', "'o'", 'is empty',
                                                'train_dataloader.dataset']),
    ('statistics on a stream', wanting(None), ['custom_hooks.StatisticsHook: ', 'is a stream (_Stream)']),
]
ROWS = [*((name, changed(change), words) for name, change, words in CHANGES),
        *((name, lambda files, cfg=cfg: build(cfg), words) for name, cfg, words in METHODS), *HOOKS]
