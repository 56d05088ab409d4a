"""Mimicking by hashing, and what it stands on: labels of a batch, box heads on any proposals."""
import pytest
import torch

from mmfeatdistill.objectives.labels import single_labels
from mmfeatdistill.objectives.roi import box_classifier, box_feature, run_box_head
from tests.models import build, classification_batch, classifier, count_calls, detector, stock

# --- labels ----------------------------------------------------------------------------------


def test_labels_of_a_batch():
    model = build(classifier())
    data = model.data_preprocessor(classification_batch((64, 64), (64, 64), (64, 64)), True)
    assert single_labels(data['data_samples']).tolist() == [0, 1, 2]


def test_a_mixed_image_has_the_label_of_its_greater_share():
    model = classifier()
    model.data_preprocessor.update(num_classes=10, batch_augments=dict(augments=[dict(type='Mixup', alpha=0.8)]))
    data = build(model).data_preprocessor(classification_batch((64, 64), (64, 64)), True)
    scores = torch.stack([sample.gt_score for sample in data['data_samples']])
    assert torch.equal(single_labels(data['data_samples']), scores.argmax(1))


def test_several_labels_or_none_are_an_error():
    from mmpretrain.structures import DataSample
    with pytest.raises(ValueError, match=r'an image has the labels \[1, 4\]'):
        single_labels([DataSample().set_gt_label([1, 4])])
    for samples, given in ((None, 'None'), ([], r'\[\]'), ([DataSample()], "'DataSample'")):
        with pytest.raises(ValueError, match=f"have no class .*; got {given}"):
            single_labels(samples)


# --- box heads -------------------------------------------------------------------------------


def cascade():
    model = stock('mmdet::_base_/models/cascade-rcnn_r50_fpn.py')
    small = detector()
    for part in ('backbone', 'neck', 'rpn_head'):
        model[part] = small[part]
    model.roi_head.bbox_roi_extractor.out_channels = 16
    for head in model.roi_head.bbox_head:
        head.update(in_channels=16, fc_out_channels=16, num_classes=10)
    model.test_cfg = dict(small.test_cfg)
    return model


def levels_and_rois(boxes=5, batch=2):
    levels = [torch.randn(batch, 16, size, size, requires_grad=True) for size in (16, 8, 4, 2, 1)]
    corners = torch.tensor([4., 6.]) + 20 * torch.rand(boxes, 2)
    index = torch.arange(boxes).remainder(batch).float()[:, None]
    return levels, torch.cat([index, corners, corners + 10 + 20 * torch.rand(boxes, 2)], 1)


@pytest.mark.parametrize('make', [detector, cascade])
def test_a_box_head_gives_what_the_detector_computes(make):
    model = build(make()).eval()
    levels, rois = levels_and_rois()
    stage = (0,) if make is cascade else ()
    with torch.no_grad():
        own = model.roi_head._bbox_forward(*stage, levels, rois)
        output = run_box_head(model, levels, rois)
    assert torch.equal(output.logits, own['cls_score']) and torch.equal(output.offsets, own['bbox_pred'])
    assert torch.equal(box_classifier(model)(output.feature), output.logits)
    assert torch.equal(box_feature(model, levels, rois), output.feature)


def test_a_shared_part_of_the_roi_head_takes_part():
    model = build(detector()).eval()
    model.roi_head.shared_head = torch.nn.Conv2d(16, 16, 3, padding=1)
    levels, rois = levels_and_rois()
    own = model.roi_head._bbox_forward(levels, rois)['cls_score']
    assert torch.equal(run_box_head(model, levels, rois).logits, own)


def test_gradient_reaches_the_levels_through_a_frozen_head():
    model = build(detector()).requires_grad_(False)
    levels, rois = levels_and_rois()
    sum(part.square().sum() for part in run_box_head(model, levels, rois)).backward()
    assert [level.grad is not None and bool(level.grad.any()) for level in levels] == [True] * 1 + [False] * 4
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_box_feature_costs_no_classifier():
    model = build(detector())
    calls = count_calls(model.roi_head.bbox_head.fc_cls), count_calls(model.roi_head.bbox_head.fc_reg)
    box_feature(model, *levels_and_rois())
    assert calls == ([], [])
    run_box_head(model, *levels_and_rois())
    assert calls == ([1], [1])


@pytest.mark.parametrize('make', [detector, cascade])
def test_a_box_head_takes_no_proposals(make):
    output = run_box_head(build(make()), *levels_and_rois(boxes=0))
    assert output.feature.shape == (0, 16) and output.logits.shape == (0, 11) and len(output.offsets) == 0
    sum(part.sum() for part in output).backward()


def test_other_models_have_no_box_head():
    with pytest.raises(ValueError, match='ImageClassifier has no roi_head; a two-stage detector is needed'):
        run_box_head(build(classifier()), *levels_and_rois())
    model = build(detector())
    with pytest.raises(ValueError, match='reads 4 levels of features, got 2'):
        box_feature(model, levels_and_rois()[0][:2], levels_and_rois()[1])
    model.roi_head.bbox_head = torch.nn.Identity()
    with pytest.raises(ValueError, match='has the roi_head StandardRoIHead with the bbox_head Identity'):
        box_classifier(model)
