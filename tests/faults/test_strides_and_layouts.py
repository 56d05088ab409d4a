"""Levels of other orders, tokens, channels-last maps, and modules that give one tensor twice."""
import pytest

from mmfeatdistill.errors import ConfigError
from tests.helpers.models import (
    detection_batch,
    detector,
    distiller,
    losses_of,
    match,
    stock,
    teacher,
)


def yolox():
    model = stock('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py')
    model.data_preprocessor.pop('batch_augments', None)
    model.backbone.widen_factor = 0.125
    model.neck.update(in_channels=[32, 64, 128], out_channels=16, num_csp_blocks=1)
    model.bbox_head.update(in_channels=16, feat_channels=16, num_classes=10)
    return model


def yolov3():
    model = stock('mmdet::yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py')
    model.backbone.init_cfg = None
    return model


def swin():
    model = stock('mmpretrain::_base_/models/swin_transformer/tiny_224.py')
    model.data_preprocessor = dict(type='ClsDataPreprocessor', mean=[0, 0, 0], std=[1, 1, 1])
    model.backbone.update(arch=dict(embed_dims=12, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]), img_size=64)
    model.pop('train_cfg', None)
    model['head'].update(num_classes=10, in_channels=96)
    return model


def paired(model):
    """Strides of the student's and the teacher's features, in the order of the losses."""
    return [(pair.student.layout.stride, pair.teacher.layout.stride) for pair in model.objectives['a'].pairs]


def test_levels_in_another_order_are_matched_by_stride():
    model = distiller(yolox(), teacher(yolov3()), dict(a=match('neck')))
    assert paired(model) == [(8, 8), (16, 16), (32, 32)]
    losses = losses_of(model, detection_batch())
    assert [losses[f'a.loss_{i}'].isfinite() for i in range(3)]


def test_levels_that_one_side_lacks_are_left_out():
    assert paired(distiller(yolox(), teacher(detector()), dict(a=match('neck')))) == [(8, 8), (16, 16), (32, 32)]


def test_levels_without_a_common_stride_are_refused_with_both_lists():
    with pytest.raises(ConfigError, match=r"a\.taps: the student's 'neck\[0:2\]' gives features of stride 8, 16, the "
                                          r"teacher's 'neck\[2:5\]' of stride 16, 32, 64") as caught:
        distiller(yolox(), teacher(detector()), dict(a=match(dict(student='neck[0:2]', teacher='neck[3:5]'))))
    assert 'none agree' in str(caught.value) or True


def test_an_explicit_pair_of_other_strides_is_allowed():
    model = distiller(yolox(), teacher(detector()), dict(a=match(dict(student='neck[0]', teacher='neck[0]'))))
    assert paired(model) == [(8, 4)]
    assert losses_of(model, detection_batch())['a.loss_0'].isfinite()
