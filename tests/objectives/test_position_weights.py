"""Weights of positions: by hand, on the heads that they are for, and refused on others."""
import copy

import pytest
import torch
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.structures import InstanceData

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.losses import weighted_error
from tests.helpers.models import (
    classifier,
    detection_batch,
    detector,
    distiller,
    losses_of,
    segmenter,
    stock,
    teacher,
    total,
)

RESNET = dict(depth=18, base_channels=8, stem_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None)
DENSE = dict(retinanet='retinanet/retinanet_r50_fpn_1x_coco.py', gfl='gfl/gfl_r50_fpn_1x_coco.py',
             fcos='fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', atss='atss/atss_r50_fpn_1x_coco.py')


def dense(name):
    model = stock(f'mmdet::{DENSE[name]}')
    model.data_preprocessor = detector().data_preprocessor  # so that the test knows the teacher's images
    model.backbone.update(RESNET, norm_cfg=dict(type='BN', requires_grad=True), style='pytorch')
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=32)
    model.bbox_head.update(in_channels=32, feat_channels=64, stacked_convs=1)
    return model


def rtmdet():
    model = stock('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py')
    model.data_preprocessor = detector().data_preprocessor
    model.backbone.update(widen_factor=0.125, init_cfg=None)
    model.neck.update(in_channels=[32, 64, 128], out_channels=16, num_csp_blocks=1)
    model.bbox_head.update(in_channels=16, feat_channels=16, num_classes=10)
    return model


def ssd():
    model = stock('mmdet::ssd/ssd300_coco.py')
    model.backbone.init_cfg = None
    return model


def matched(weight, loss='WeightedError', tap='neck', connector='Conv1x1'):
    return dict(o=dict(type='FeatureMatch', taps=[tap], connector=dict(type=connector), loss=dict(type=loss),
                       weight=weight))


def weights_of(model, batch):
    """What the loss of each level was given."""
    seen = []
    handle = model.objectives['o'].loss.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args[1], kwargs['weight'])), with_kwargs=True)
    losses = losses_of(model, batch)
    handle.remove()
    return seen, losses


SCORE = dict(type='TeacherScore')


@pytest.mark.parametrize('make, options', [
    *((lambda name=name: dense(name), SCORE) for name in DENSE), (rtmdet, SCORE),
    (lambda: detector(16, 32), dict(SCORE, head='rpn_head'))], ids=[*DENSE, 'rtmdet', 'faster_rcnn'])
def test_the_best_score_of_the_teacher_at_each_position(make, options):
    model = distiller(detector(), teacher(make()), matched(options))
    batch = detection_batch((128, 128))
    seen, losses = weights_of(model, batch)
    inputs = model.data_preprocessor(copy.deepcopy(batch), True)['inputs']
    network = model.teachers[0].model
    with torch.no_grad():
        levels = network.extract_feat(inputs)
        scores = network.get_submodule(options.get('head', 'bbox_head'))(levels)[0]
    assert len(seen) >= 3
    for target, weight in seen:
        assert weight.shape == (1, 1, *target.shape[2:]) and (weight > 0).all() and (weight < 1).all()
        [same] = [score for score in scores if score.shape[2:] == target.shape[2:]]
        torch.testing.assert_close(weight, same.sigmoid().amax(1, keepdim=True))
    assert all(value.isfinite() for name, value in losses.items() if name.startswith('o.'))


@pytest.mark.parametrize('shape', ['boxes', 'masks'])
def test_labels_say_where(shape):
    objective = matched(dict(type='GroundTruth', shape=shape, background=0.25))
    model = distiller(detector(), teacher(detector(16, 32)), objective)
    batch = detection_batch((64, 64), (32, 64))
    pixels = torch.zeros(2, 64, 64, dtype=torch.uint8)
    pixels[0, :8, :16] = 1
    first, second = batch['data_samples']
    first.gt_instances = InstanceData(bboxes=torch.tensor([[0., 0, 15, 7], [0, 0, 3, 3]]), labels=torch.tensor([1, 2]),
                                      masks=BitmapMasks(pixels.numpy(), 64, 64))
    second.gt_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long),
                                       masks=PolygonMasks([], 32, 64))
    (_, weight), *_ = weights_of(model, batch)[0]
    assert weight.shape == (2, 1, 16, 16)
    covered = weight[0, 0] == 1
    # Of boxes, corners are rounded outwards, and both ends are inside.
    rows, columns = (3, 5) if shape == 'boxes' else (2, 4)
    assert covered[:rows, :columns].all() and covered.sum() == rows * columns
    assert (weight[0, 0][~covered] == 0.25).all() and (weight[1] == 0.25).all()


def test_the_loss_is_a_weighted_mean():
    student, target = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    weight = torch.rand(2, 1, 4, 5)
    wanted = (weight * (student - target) ** 2).sum() / (3 * weight.sum())
    torch.testing.assert_close(weighted_error(student, target, weight=weight), wanted)
    torch.testing.assert_close(weighted_error(student, target), (student - target).square().mean())
    assert weighted_error(student, target, weight=0 * weight) == 0
    with pytest.raises(ValueError, match=r'weight must have the shape \(2, 1, 4, 5\) .* got \(2, 4, 5\)'):
        weighted_error(student, target, weight=weight[:, 0])


def test_a_batch_without_objects_has_nothing_to_match():
    model = distiller(detector(), teacher(detector(16, 32)), matched(dict(type='GroundTruth')))
    batch = detection_batch()
    for sample in batch['data_samples']:
        sample.gt_instances = sample.gt_instances[:0]
    losses = losses_of(model, batch)
    assert all(value == 0 for name, value in losses.items() if name.startswith('o.'))
    total(model, batch).backward()


@pytest.mark.parametrize('make, words', [
    (lambda: (detector(), ssd(), matched(SCORE, tap=dict(student='neck[0]', teacher='neck[0]'))),
     r"o.weight: the teacher's 'bbox_head' \(SSDHead\) has a softmax .*GroundTruth"),
    (lambda: (detector(), detector(), matched(dict(SCORE, head='roi_head.bbox_head'))),
     r"o.weight: the teacher's 'roi_head.bbox_head' \(.*\) does not predict at every position"),
    (lambda: (detector(), dense('retinanet'), matched(SCORE, tap=dict(student='backbone[0]', teacher='backbone[0]'))),
     r'o.weight: .* gives scores of stride 8, 16, 32, 64, and none for backbone\[0\]\[0\] \(stride 4\)'),
    (lambda: (detector(), detector(), matched(SCORE)), "teacher has no module 'bbox_head'"),
    (lambda: (detector(), dense('retinanet'), matched(SCORE, loss='SquaredError')),
     r"o.loss.type: SquaredError does not weigh positions, .* use dict\(type='WeightedError'\)"),
    (lambda: (segmenter(), segmenter(), matched(dict(type='GroundTruth'), tap='backbone[-1]')),
     'o.weight: GroundTruth needs the boxes of the batch, .* EncoderDecoder of mmseg has none'),
    (lambda: (classifier(), classifier(), matched(SCORE, tap='neck')), "teacher has no module 'bbox_head'"),
    (lambda: (detector(), detector(), matched(dict(type='SquaredError'))),
     'model.objectives.o: weight.type: SquaredError tells no weights of positions'),
    (lambda: (detector(), detector(), matched(dict(type='GroundTruth', shape='points'))),
     "weight: shape: expected 'boxes' or 'masks', got 'points'"),
    (lambda: (detector(), detector(), matched(dict(type='GroundTruth', background=-1))),
     'weight: background: expected a number of at least 0, got -1'),
    (lambda: (detector(), detector(), matched(dict(type='GroundTruth', back=1))),
     'weight.back: there is no such option')])
def test_what_cannot_work_is_refused_when_it_is_built(make, words):
    student, of_teacher, objectives = make()
    with pytest.raises(ConfigError, match=words):
        distiller(student, teacher(of_teacher), objectives)


def test_a_batch_without_masks_is_an_error():
    model = distiller(detector(), teacher(detector(16, 32)), matched(dict(type='GroundTruth', shape='masks')))
    with pytest.raises(ValueError, match='no masks .* with_mask=True missing'):
        losses_of(model, detection_batch())


def test_a_teacher_without_a_dense_head_is_told_where_its_scores_are():
    with pytest.raises(ConfigError, match="of two-stage detectors that is .*head='rpn_head'"):
        distiller(detector(), teacher(detector()), matched(SCORE))
