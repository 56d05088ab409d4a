"""The target-aware term of DETRDistill: against its authors' code, its scores by hand, and what it promises."""
import copy
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.losses import target_aware
from mmfeatdistill.losses.target_aware import query_attention
from mmfeatdistill.objectives.query_scores import query_scores
from tests.helpers.models import classifier, detection_batch, detector, distiller, losses_of, stock, teacher, total

ROOT = Path(__file__).parents[1]
GOLDEN = np.load(ROOT / 'data' / 'golden' / 'target_aware.npz')
G = {name: torch.from_numpy(GOLDEN[name]) for name in GOLDEN.files}
QUERIES, SCORES = (torch.stack([G[f'{name}_layer{layer}'] for layer in range(2)]) for name in ('queries', 'scores'))


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_values_and_gradients_of_the_authors():
    students = [G[f'student_level{level}'].clone().requires_grad_() for level in range(2)]
    pairs = [(student, G[f'teacher_level{level}']) for level, student in enumerate(students)]
    for layer in range(2):
        of_layer = dict(queries=QUERIES[layer:layer + 1], scores=SCORES[layer:layer + 1])
        found = sum(target_aware(*pair, **of_layer) for pair in pairs)
        assert found.item() == pytest.approx(G[f'loss_layer{layer}'].item(), rel=1e-6)
    loss = sum(target_aware(*pair, queries=QUERIES, scores=SCORES) for pair in pairs)
    loss.backward()
    assert loss.item() == pytest.approx(G['loss_sum'].item(), rel=1e-6)
    for level, student in enumerate(students):
        close(student.grad, G[f'grad_student_level{level}'])


def test_the_attention_is_the_sum_of_cosines():
    feature = G['teacher_level0']
    cosines = torch.cosine_similarity(QUERIES[..., None, None], feature[:, None], dim=3)
    plain = (SCORES[..., None, None] * cosines).sum(2).clamp(min=0.01)
    close(query_attention(feature, QUERIES, SCORES), plain / plain.amax((2, 3), keepdim=True))


def test_queries_and_scores_get_no_gradient_and_unsure_teachers_look_everywhere():
    feature, queries = torch.rand(1, 4, 2, 3, requires_grad=True), torch.rand(2, 1, 5, 4, requires_grad=True)
    scores = torch.zeros(2, 1, 5, requires_grad=True)
    loss = target_aware(feature, feature.detach() + 1, queries=queries, scores=scores)
    loss.backward()
    assert queries.grad is None and scores.grad is None and feature.grad.any()
    assert loss.item() == pytest.approx(2), 'the mean of ones, from two layers'
    assert not target_aware(torch.zeros(0, 4, 2, 3), torch.zeros(0, 4, 2, 3), queries=torch.zeros(2, 0, 5, 4),
                            scores=torch.zeros(2, 0, 5))


@pytest.mark.parametrize('queries, scores, words', [
    (torch.zeros(2, 1, 5, 3), torch.zeros(2, 1, 5), r'queries must have .* \(L, 1, Q, 4\) .* got \(2, 1, 5, 3\)'),
    (torch.zeros(1, 5, 4), torch.zeros(1, 5), r'queries must have the shape \(L, 1, Q, 4\)'),
    (torch.zeros(2, 1, 5, 4), torch.zeros(2, 5, 1), r'scores must have the shape \(2, 1, 5\), .* got \(2, 5, 1\)')])
def test_queries_that_do_not_fit(queries, scores, words):
    with pytest.raises(ValueError, match=words):
        target_aware(torch.zeros(1, 4, 2, 3), torch.zeros(1, 4, 2, 3), queries=queries, scores=scores)


def test_scores_are_those_of_boxes_that_fit_among_what_is_predicted():
    torch.manual_seed(0)
    logits, boxes = torch.randn(2, 2, 6, 3), torch.rand(2, 2, 6, 4) * 0.5 + 0.1
    labeled = torch.tensor([[0.1, 0.1, 0.6, 0.5], [0.2, 0.4, 0.9, 0.8]])
    found = query_scores(logits, boxes, [labeled, labeled[:0]], max_per_image=4)
    for layer in range(2):
        for image in range(2):
            scores = logits[layer, image].sigmoid()
            kept = {int(index) // 3 for index in scores.flatten().argsort(descending=True)[:4]}
            center, size = boxes[layer, image].split(2, dim=1)
            overlaps = bbox_overlaps(torch.cat([center - size / 2, center + size / 2], dim=1), labeled).amax(1)
            for query in range(6):
                fit = overlaps[query] if image == 0 else 1
                wanted = scores[query].max() * fit if query in kept else torch.zeros(())
                torch.testing.assert_close(found[layer, image, query], wanted)


@functools.cache
def transformer_pair() -> Config:
    cfg = Config.fromfile(ROOT / 'distributed' / 'transformer_detector.py').model
    cfg.pop('type')
    return cfg


def built(**changes):
    cfg = copy.deepcopy(transformer_pair())
    cfg.teacher.model.with_box_refine = changes.pop('with_box_refine', False)
    cfg.teacher.model.bbox_head.loss_cls = changes.pop('loss_cls', cfg.teacher.model.bbox_head.loss_cls)
    options = dict(cfg.objectives.target_aware, **changes)
    return initialized(distiller(cfg.student, cfg.teacher, dict(target_aware=options)))


def initialized(model):
    """Their embeddings hold whatever was in memory before."""
    torch.manual_seed(0)
    model.init_weights()
    model.teachers[0].model.init_weights()
    return model


def batch():
    made = detection_batch((64, 96), (96, 64))
    for sample in made['data_samples']:
        sample.set_metainfo(dict(batch_input_shape=(96, 96)))
    return made


@pytest.mark.parametrize('changes', [{}, dict(with_box_refine=True)])
def test_transformer_detectors_train_with_it(changes):
    model = built(**changes)
    losses = losses_of(model, batch())
    assert {name for name in losses if name.startswith('target_aware.')} == {
        f'target_aware.loss_{level}' for level in range(4)}
    sum(losses[f'target_aware.loss_{level}'] for level in range(4)).backward()
    assert model.neck.convs[0].conv.weight.grad.any() and model.backbone.layer4[0].downsample[0].weight.grad.any()
    assert all(parameter.grad is None for parameter in model.teachers[0].model.parameters())


def test_dino_teaches_a_detector_of_another_kind():
    dino = stock('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py')
    dino.backbone.update(depth=18, base_channels=8, stem_channels=8, frozen_stages=-1, init_cfg=None)
    dino.neck.in_channels = [16, 32, 64]
    dino.encoder.num_layers, dino.decoder.num_layers, dino.num_queries = 1, 2, 20
    model = initialized(distiller(detector(), teacher(dino),
                                  dict(target_aware=dict(type='TargetAware', taps=['neck']))))
    made = losses_of(model, batch())
    assert len([name for name in made if name.startswith('target_aware.')]) == 4, 'strides 8 to 64'
    assert [tuple(connector.weight.shape[:2]) for connector in model.objectives['target_aware'].connectors] == (
        [(256, 16)] * 4)
    assert all(value.isfinite() for name, value in made.items() if name.startswith('target_aware.'))


def test_a_twin_has_nothing_to_learn_and_boxes_matter():
    model = built()
    model.teachers[0].model.load_state_dict(
        {name: value for name, value in model.state_dict().items() if not name.startswith('distiller.')})
    model.backbone.eval()  # all of it has no losses in eval mode
    assert all(value < 1e-9 for name, value in losses_of(model, batch()).items() if 'target_aware' in name)
    model = built()
    for branch in model.teachers[0].model.bbox_head.cls_branches:
        branch.bias.data.zero_()  # as it starts, it is so unsure that all positions count alike
    plain, moved = batch(), batch()
    moved['inputs'] = plain['inputs']
    for sample in moved['data_samples']:
        sample.gt_instances.bboxes = torch.tensor([[0., 0, 63, 63], [0, 0, 8, 8]])
    first, second = (losses_of(model, made) for made in (plain, moved))
    assert not torch.equal(first['target_aware.loss_0'], second['target_aware.loss_0'])


@pytest.mark.parametrize('make, words', [
    (lambda: distiller(classifier(), teacher(detector()), dict(a=dict(type='TargetAware', taps=['neck']))),
     "teacher has no module 'bbox_head'"),
    (lambda: distiller(detector(), teacher(retinanet()), dict(a=dict(type='TargetAware', taps=['neck']))),
     r'a: TargetAware needs a teacher whose bbox_head takes the queries .* that of RetinaNet takes \(1, 16, 8, 8\)'),
    (lambda: built(loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False)),
     'target_aware: TargetAware weighs queries by sigmoid scores, .* has a softmax'),
    (lambda: built(taps=['backbone']), r"target_aware.taps: the teacher's 'backbone' gives 16 channels"),
    (lambda: built(max_per_image=0), 'max_per_image: expected a positive integer, got 0'),
    (lambda: built(weight=1), 'target_aware.weight: there is no such option')])
def test_what_cannot_work_is_refused_when_it_is_built(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def retinanet():
    model = stock('mmdet::_base_/models/retinanet_r50_fpn.py')
    model.backbone.update(depth=18, base_channels=8, stem_channels=8, frozen_stages=-1, init_cfg=None)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    model.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=1)
    return model


def test_the_total_can_be_minimized():
    assert total(built(), batch()).isfinite()
