"""A softmax over scores that are no distribution: refused or said, on stock heads, and nothing said of others."""
import logging

import pytest
from mmengine.logging import MMLogger

from mmfeatdistill.errors import ConfigError
from tests.helpers.dense import dense_detector
from tests.helpers.models import classifier, distiller, segmenter, teacher

SIGMOID = dict(type='CrossEntropyLoss', use_sigmoid=True)
LOSSES = ('KLDivergence', 'DIST', 'SquaredError')


def several_labels(loss):
    model = classifier()
    model['head'] = dict(type='MultiLabelLinearClsHead', num_classes=10, in_channels=64, loss=loss)
    return model


def binary_classifier(loss=SIGMOID):
    model = classifier()
    model['head'].loss = loss
    return model


def binary_segmenter(*losses):
    model = segmenter()
    model.decode_head.loss_decode = [*losses] if len(losses) > 1 else losses[0]
    return model


def built(student, tap, objective='KLDivergence', mentor=None):
    cfg = dict(type='Decoupled', taps=[tap]) if objective == 'Decoupled' else dict(
        type='FeatureMatch', taps=[tap], loss=dict(type=objective))
    return distiller(student, teacher(mentor or student), dict(logits=cfg))


@pytest.fixture
def warnings(caplog, monkeypatch):
    monkeypatch.setattr(MMLogger, 'callHandlers', lambda self, record: caplog.handler.emit(record))
    return lambda: [record.getMessage() for record in caplog.records
                    if record.levelno >= logging.WARNING and 'softmax' in record.getMessage()]


@pytest.mark.parametrize('make, tap', [
    (lambda: several_labels(SIGMOID), 'head.fc'),
    (lambda: several_labels(dict(type='FocalLoss')), 'head.fc'),
    (lambda: dense_detector('retinanet'), 'bbox_head.retina_cls:each'),
    (lambda: dense_detector('fcos'), 'bbox_head.conv_cls:each')])
def test_several_classes_or_none(make, tap):
    for loss in LOSSES:
        if loss == 'SquaredError':
            built(make(), tap, loss)
            continue
        words = rf"logits\.taps: .* a sigmoid for each class of the student's '{tap}', .*{loss} takes a softmax .*" \
                r"dict\(type='SquaredError'\).*'CrossHead'"
        with pytest.raises(ConfigError, match=words):
            built(make(), tap, loss)


def test_several_labels_and_one_by_one():
    with pytest.raises(ConfigError, match=r"logits\.taps: .* and Decoupled takes a softmax"):
        built(several_labels(SIGMOID), 'head.fc', 'Decoupled')


@pytest.mark.parametrize('make, tap, objectives', [
    (binary_classifier, 'head.fc', ('KLDivergence', 'DIST', 'Decoupled')),
    (lambda: binary_segmenter(SIGMOID), 'decode_head.conv_seg', ('KLDivergence', ))])
def test_one_class_that_was_trained_by_sigmoids_is_said(make, tap, objectives, warnings):
    for objective in objectives:
        before = len(warnings())
        built(make(), tap, objective)
        assert len(warnings()) == before + 2 and f'{objective} takes a softmax' in warnings()[-1], 'of each side'
        assert "SquaredError" in warnings()[-1]


def test_of_a_teacher_alone(warnings):
    built(classifier(), 'head.fc', mentor=binary_classifier())
    assert len(warnings()) == 1 and "the teacher's 'head.fc'" in warnings()[0]


@pytest.mark.parametrize('make, tap, objectives', [
    (classifier, 'head.fc', ('KLDivergence', 'DIST', 'Decoupled')),
    (lambda: binary_classifier(dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')), 'head.fc',
     ('Decoupled',)),
    (segmenter, 'decode_head.conv_seg', ('KLDivergence',)),
    (lambda: binary_segmenter(dict(type='CrossEntropyLoss'), dict(type='DiceLoss', loss_name='loss_dice')),
     'decode_head.conv_seg', ('DIST',)),
    (lambda: dense_detector('retinanet'), 'neck', ('KLDivergence',)),
    (lambda: dense_detector('retinanet'), 'bbox_head.cls_convs.2:each', ('KLDivergence',))])
def test_no_false_alarm(make, tap, objectives, warnings):
    for objective in objectives:
        built(make(), tap, objective)
    assert not warnings()
