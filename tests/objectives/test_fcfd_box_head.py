"""FCFD on two-stage detectors: both box heads on the student's proposals."""

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.losses import kl_divergence
from tests.helpers.models import (
    classifier,
    count_calls,
    detection_batch,
    detector,
    distiller,
    losses_of,
    make_agree,
    stock,
    teacher,
)

ROIS = 'roi_head.bbox_roi_extractor:in[-1]'


def box_head(student=None, mentor=None, **options):
    model = distiller(student or detector(), teacher(mentor or detector(16, 32)),
                      dict(fcfd=dict(type='FCFDBoxHead', taps=['neck'], **options)))
    model.init_weights()
    return model.train()


def test_the_loss_is_the_sum_of_its_parts():
    """Computed again by hand from the proposals that the student sampled, through mmdet's own box heads."""
    model = box_head(tau=2.0, appearance_weight=3.0, class_weight=0.5, box_weight=0.25)
    objective, student, mentor = model.objectives['fcfd'], model.student, model.teachers[0].model
    seen = []
    objective.register_forward_pre_hook(lambda _, args: seen.append(args))
    losses = losses_of(model, detection_batch())
    (own, (theirs,)), = seen
    levels, targets, rois = own['neck'], theirs['neck'], own[ROIS][0]
    assert rois.shape == (16, 5)
    bridged = [bridge(level) for bridge, level in zip(objective.to_teacher, levels)]
    returned = [bridge(level) for bridge, level in zip(objective.to_student, targets)]
    with torch.no_grad():
        wanted = mentor.roi_head._bbox_forward(targets, rois)
    heads = [student.roi_head._bbox_forward(levels, rois), mentor.roi_head._bbox_forward(bridged, rois),
             student.roi_head._bbox_forward(returned, rois)]
    torch.testing.assert_close(losses['fcfd.loss_appearance'],
                               3 * sum((b - t).square().mean() for b, t in zip(bridged, targets)))
    torch.testing.assert_close(losses['fcfd.loss_class'], 0.5 * sum(
        kl_divergence(head['cls_score'], wanted['cls_score'], tau=2.0) for head in heads))
    torch.testing.assert_close(losses['fcfd.loss_box'], 0.25 * sum(
        (head['bbox_pred'] - wanted['bbox_pred']).square().mean() for head in heads))


def test_gradient_reaches_the_student_and_every_bridge_and_never_the_teacher():
    model = box_head()
    losses = losses_of(model, detection_batch())
    sum(value for name, value in losses.items() if name.startswith('fcfd.')).backward()
    assert all(parameter.grad is not None for parameter in model.distiller.parameters())
    for part in (model.backbone.conv1, model.neck.fpn_convs[0].conv, model.roi_head.bbox_head.fc_cls):
        assert part.weight.grad.any()
    assert all(parameter.grad is None for parameter in model.teachers[0].model.parameters())


def test_statistics_of_the_students_box_head_are_of_its_own_features():
    """Features of the teacher run through it as well, and are no part of what it is evaluated with."""
    student = detector()
    student.roi_head.bbox_head = dict(student.roi_head.bbox_head, type='Shared4Conv1FCBBoxHead', conv_out_channels=8,
                                      norm_cfg=dict(type='BN'))
    model = box_head(student)
    losses_of(model, detection_batch())
    norms = [module for module in model.roi_head.bbox_head.modules() if isinstance(module, _BatchNorm)]
    assert len(norms) == 4 and {int(norm.num_batches_tracked) for norm in norms} == {1}


def test_what_is_run():
    """The teacher's backbone once; its box head for its own and for the bridged levels; the student's once more."""
    model = box_head()
    mentor = model.teachers[0].model
    calls = [count_calls(module) for module in (
        mentor.backbone.conv1, mentor.rpn_head.rpn_conv, mentor.roi_head.bbox_head, model.student.backbone.conv1,
        model.student.roi_head.bbox_head)]
    losses_of(model, detection_batch())
    assert [len(of_module) for of_module in calls] == [1, 0, 2, 1, 2]


def test_no_proposals():
    model = box_head()
    objective = model.objectives['fcfd']
    seen = []
    handle = objective.register_forward_pre_hook(lambda _, args: seen.append(args))
    losses_of(model, detection_batch())
    handle.remove()
    own, theirs = seen[0]
    for tap, tensors in own.features.items():
        if tap.startswith('roi_head'):
            own.features[tap] = [tensor[:0] for tensor in tensors]
    losses = objective(own, theirs)
    assert losses['loss_class'] == 0 and losses['loss_box'] == 0 and losses['loss_appearance'] > 0
    sum(losses.values()).backward()


def test_a_cascade_teaches_with_its_first_stage():
    cascade = stock('mmdet::_base_/models/cascade-rcnn_r50_fpn.py')
    small = detector(16, 32)
    cascade.backbone, cascade.neck, cascade.rpn_head = small.backbone, small.neck, small.rpn_head
    cascade.roi_head.bbox_roi_extractor.out_channels = 32
    for head in cascade.roi_head.bbox_head:
        head.update(in_channels=32, fc_out_channels=16, num_classes=10)
    with pytest.raises(ConfigError, match=r'model\.objectives\.fcfd: .* gives 40 box deltas .*box_weight=0.* 4;'):
        box_head(mentor=cascade)
    losses = losses_of(box_head(mentor=cascade, box_weight=0), detection_batch())
    assert losses['fcfd.loss_class'] > 0 and 'fcfd.loss_box' not in losses


def test_levels_that_only_the_teacher_has_are_left_out():
    deeper = detector(16, 32)
    deeper.neck.num_outs = 6
    model = box_head(mentor=deeper)
    assert len(model.objectives['fcfd'].pairs) == 5
    assert losses_of(model, detection_batch())['fcfd.loss_class'] > 0


def test_what_cannot_be_compared():
    other = detector(16, 32)
    other.roi_head.bbox_head.num_classes = 12
    with pytest.raises(ConfigError, match="gives 11 class logits, background included, and the teacher's 13"):
        box_head(mentor=other)
    with pytest.raises(ConfigError, match="no module 'roi_head"):
        distiller(classifier(), teacher(detector()), dict(
            fcfd=dict(type='FCFDBoxHead', taps=[dict(student='backbone', teacher='neck[0]')])))


def test_one_image():
    model = box_head()
    added = {name: value for name, value in losses_of(model, detection_batch((128, 128))).items() if 'fcfd.' in name}
    assert len(added) == 3 and all(value.isfinite() for value in added.values())


def test_networks_that_agree_have_no_loss():
    """The same weights and statistics on both sides, and bridges that change nothing."""
    model = distiller(detector(), teacher(detector(), batch_statistics=True),
                      dict(fcfd=dict(type='FCFDBoxHead', taps=['neck'])))
    model.init_weights()
    model.train()
    make_agree(model)
    added = {name: value for name, value in losses_of(model, detection_batch()).items() if name.startswith('fcfd.')}
    assert len(added) == 3 and all(value.abs() < 1e-6 for value in added.values())
