"""Mimicking by hashing, and what it stands on: labels of a batch, box heads on any proposals."""
import math
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmfeatdistill.engine.hooks import statistics_hook
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.losses import lsh
from mmfeatdistill.objectives import LSH, hyperplanes
from mmfeatdistill.objectives.finite_guard import FiniteGuard
from mmfeatdistill.objectives.labels import single_labels
from mmfeatdistill.objectives.roi import box_classifier, box_feature, run_box_head
from mmfeatdistill.taps.reader import TappedPass, TapReader
from tests.helpers.models import (
    build,
    classification_batch,
    classifier,
    count_calls,
    detection_batch,
    detector,
    distiller,
    losses_of,
    segmenter,
    stock,
    teacher,
)
from tests.helpers.runs import small, train

GOLDEN = Path(__file__).parents[1] / 'data' / 'golden' / 'lsh.npz'
KEY = 'model.objectives.penultimate'

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


# --- hashing: values -------------------------------------------------------------------------


def golden():
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def reading(feature, logits=None, labels=None):
    """What a network gave whose classifier is the module '0'."""
    from mmpretrain.structures import DataSample
    net = nn.Sequential(nn.Linear(feature.shape[1], 5))
    samples = None if labels is None else [DataSample().set_gt_label(int(label)) for label in labels]
    return TappedPass({'0:in': [feature], '0': [feature if logits is None else logits]},
                   TapReader(net, ['0:in', '0'], 'net'), feature, samples)


def prepared(student, *targets, **options):
    first = [replace(one, features={tap: [tensor[:1] for tensor in tensors] for tap, tensors in one.features.items()})
             for one in (student, *targets)]
    objective = LSH(['0:in'], **options)
    objective.prepare(first[0], first[1:], KEY)
    return objective


@pytest.mark.parametrize('name, options', [
    ('bce', dict(with_l2=False)), ('bce_l2', {}), ('l1', dict(kind='l1', with_l2=False)),
    ('l2', dict(kind='l2', with_l2=False)), ('correct_only', dict(only_correct=True, with_l2=False)),
    ('correct_only_l2', dict(only_correct=True)), ('roi_beta7', dict(loss_weight=7))])
def test_what_the_authors_compute(name, options):
    g = golden()
    roi = name.startswith('roi')
    feature, target = (g[f'roi_{side}' if roi else f'f_{side}'].flatten(1) for side in 'st')
    student = reading(feature.requires_grad_())
    known = reading(target) if roi else reading(target, g['teacher_logits'], g['labels'])
    objective = prepared(student, known, **dict(hashes=96, std=1.0, bias='zero', loss_weight=1) | options)
    objective.hashings[0].weight.copy_(g['hash_weight'])
    objective.hashings[0].bias.copy_(torch.zeros(96) if roi else g['hash_bias'])
    loss = objective(student, [known])['loss_0']
    loss.backward()
    assert loss.item() == pytest.approx(g[f'loss_{name}'].item(), rel=1e-6)
    expected = g[f'grad_{name}'].flatten(1)
    torch.testing.assert_close(feature.grad, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_equal_features_leave_the_entropy_of_the_projections():
    same = reading(torch.randn(6, 8))
    objective = prepared(same, same, bias='zero', loss_weight=3)
    margins = (same['0:in'][0] @ objective.hashings[0].weight.T).abs()
    torch.testing.assert_close(objective(same, [same])['loss_0'], 3 * torch.log1p(torch.exp(-margins)).mean())
    for kind in ('l1', 'l2'):
        assert prepared(same, same, bias='zero', kind=kind)(same, [same])['loss_0'] == 0


def test_nothing_rightly_classified_is_no_loss_and_no_gradient():
    feature = torch.randn(4, 8, requires_grad=True)
    wrong = reading(torch.randn(4, 8), F.one_hot(torch.tensor([1, 2, 3, 4])).float(), labels=[0, 0, 0, 0])
    objective = prepared(reading(feature), wrong, bias='zero', only_correct=True)
    loss = objective(reading(feature), [wrong])['loss_0']
    loss.backward()
    assert loss == 0 and not feature.grad.any()


def test_positions_of_maps_are_samples():
    student, target = reading(torch.randn(3, 8, 2, 3)), reading(torch.randn(3, 8, 4, 6))
    objective = prepared(student, target, bias='zero', hashes=16)
    resized = F.interpolate(student['0:in'][0], size=(4, 6), mode='bilinear')
    rows = [torch.stack([feature[n, :, y, x] for n in range(3) for y in range(4) for x in range(6)])
            for feature in (resized, target['0:in'][0])]
    by_hand = 5 * lsh(*rows, weight=objective.hashings[0].weight, bias=torch.zeros(16), with_l2=True)
    torch.testing.assert_close(objective(student, [target])['loss_0'], by_hand)


def test_each_teacher_and_place_has_hashes_of_its_own():
    student, first, second = (reading(torch.randn(2, 8)) for _ in range(3))
    objective = prepared(student, first, second, bias='zero')
    assert list(objective(student, [first, second])) == ['loss_0', 'loss_1']
    assert not torch.equal(objective.hashings[0].weight, objective.hashings[1].weight)


# --- hashing: offsets ------------------------------------------------------------------------


class Ranks:
    """Processes as threads that exchange tensors."""

    def __init__(self, count, monkeypatch):
        self.count, self.slots, self.here = count, [None] * count, threading.local()
        self.barrier = threading.Barrier(count, timeout=20)
        monkeypatch.setattr(hyperplanes, 'all_gather', self.all_gather)
        monkeypatch.setattr(hyperplanes, 'all_reduce', self.all_reduce)

    def all_gather(self, tensor):
        assert len({value.shape for value in self.exchange(tensor)}) == 1, 'as a real one demands'
        return self.exchange(tensor)

    def all_reduce(self, tensor):
        tensor.copy_(sum(self.exchange(tensor.clone())))

    def exchange(self, tensor):
        self.slots[self.here.rank] = tensor
        self.barrier.wait()
        values = list(self.slots)
        self.barrier.wait()
        return values

    def run(self, function):
        def of_rank(rank):
            self.here.rank = rank
            function(rank)

        threads = [threading.Thread(target=of_rank, args=(rank,)) for rank in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def offsets_by_hand(bias, features, weight):
    projections = (features.double() @ weight.T.double()).numpy()
    if bias == 'mean':
        return -projections.mean(0)
    return -np.sort(projections, axis=0)[(len(projections) - 1) // 2]


@pytest.mark.parametrize('bias', ['median', 'mean'])
@pytest.mark.parametrize('count', [24, 25])
def test_offsets_are_those_of_all_samples(bias, count):
    features = 3 + torch.randn(count, 8)
    objective = prepared(reading(features), reading(features), bias=bias, hashes=40)
    for batch in features.split(7):
        objective.update_statistics([reading(batch)])
    objective.finish_statistics()
    [hashing] = objective.hashings
    np.testing.assert_allclose(hashing.bias, offsets_by_hand(bias, features, hashing.weight), rtol=1e-5, atol=1e-6)
    assert objective.images_wanted == 0


@pytest.mark.parametrize('bias', ['median', 'mean'])
@pytest.mark.parametrize('shares', [(17, 8), (25, 0), (1, 24)])
def test_offsets_are_those_of_all_processes(monkeypatch, bias, shares):
    monkeypatch.setattr(hyperplanes, '_MAX_GATHERED', 3 * 25 + 1)  # three hashes at once
    features = 3 + torch.randn(25, 8)
    objectives = [prepared(reading(features), reading(features), bias=bias, hashes=40, std=1.0) for _ in shares]
    for objective, share in zip(objectives, features.split(shares)):
        if len(share):
            objective.update_statistics([reading(share)])
    Ranks(2, monkeypatch).run(lambda rank: objectives[rank].finish_statistics())
    first, second = (objective.hashings[0] for objective in objectives)
    assert torch.equal(first.bias, second.bias)
    np.testing.assert_allclose(first.bias, offsets_by_hand(bias, features, first.weight), rtol=1e-5, atol=1e-6)


def test_medians_of_maps_are_over_some_positions_of_each():
    small_map, large_map = torch.randn(9, 8, 4, 8), torch.randn(2, 8, 40, 50)
    exact = prepared(reading(small_map), reading(small_map), max_samples=70)
    assert exact.images_wanted == 3
    exact.update_statistics([reading(small_map)])
    exact.finish_statistics()
    [hashing] = exact.hashings
    rows = small_map.flatten(2).transpose(1, 2).flatten(0, 1)
    np.testing.assert_allclose(hashing.bias, offsets_by_hand('median', rows, hashing.weight), rtol=1e-5, atol=1e-6)
    sampled = prepared(reading(large_map), reading(large_map))
    sampled.update_statistics([reading(large_map)])
    kept = torch.cat(sampled.hashings[0]._statistic._samples)
    assert len(kept) == 64
    rows = large_map.flatten(2).transpose(1, 2)
    places = [[(rows[image] == row).all(1).nonzero().item() for row in kept[32 * image:32 * image + 32]]
              for image in range(2)]
    assert all(len(set(of_image)) == 32 for of_image in places) and places[0] != places[1]


def test_how_many_images_are_wanted():
    vectors = reading(torch.randn(2, 8))
    wanted = {bias: prepared(vectors, vectors, bias=bias, max_samples=70).images_wanted
              for bias in ('median', 'mean', 'zero')}
    assert wanted == dict(median=70, mean=math.inf, zero=0)


def test_without_offsets_there_is_no_training():
    model = distiller(classifier(), teacher(classifier()), dict(penultimate=dict(type='LSH', taps=['head.fc:in'])))
    with pytest.raises(ConfigError, match=r"penultimate.bias: 'median' .* add dict\(type='mmfeatdistill.Statistics"):
        losses_of(model, classification_batch())


# --- hashing: in a distiller -----------------------------------------------------------------


def hashed(student, teacher_model, **options):
    options = dict(type='LSH', taps=['head.fc:in'], bias='zero') | options
    return distiller(student, teacher(teacher_model), dict(penultimate=options))


def test_the_hashes_spread_as_the_classifier_and_are_the_same_in_every_run():
    def drawn(seed=0):
        state = torch.get_rng_state()
        model = hashed(classifier(), classifier(), seed=seed)
        torch.set_rng_state(state)
        with torch.no_grad():
            model.teachers[0].model.head.fc.weight.mul_(7)
        return model.objectives['penultimate'].hashings[0].weight, model.teachers[0].model.head.fc.weight / 7

    (first, classes), (again, _), (other, _) = drawn(), drawn(), drawn(seed=1)
    assert first.shape == (2048, 64) and first.std().item() == pytest.approx(classes.std().item(), rel=0.01)
    assert torch.equal(first, again) and not torch.equal(first, other)
    named = hashed(segmenter(), segmenter(), taps=['decode_head.convs.1'], classifier='decode_head.conv_seg')
    classes = named.teachers[0].model.decode_head.conv_seg.weight
    assert named.objectives['penultimate'].hashings[0].weight.std().item() == pytest.approx(classes.std().item(),
                                                                                           rel=0.02)


def test_gradient_reaches_the_student_and_the_connector_alone():
    model = hashed(classifier(), classifier(16), connector=dict(type='Conv1x1'))
    losses_of(model, classification_batch((64, 64)))['penultimate.loss_0'].backward()
    assert model.backbone.conv1.weight.grad.any() and model.head.fc.weight.grad is None
    assert all(p.grad is not None for p in model.objectives['penultimate'].parameters())
    assert {name for name, _ in model.objectives['penultimate'].named_parameters()} == {
        'connectors.0.weight', 'connectors.0.bias'}
    assert all(p.grad is None for p in model.teachers[0].model.parameters())


def test_in_half_precision():
    model = hashed(classifier(), classifier(16), connector=dict(type='Conv1x1'))
    exact = losses_of(model, classification_batch())['penultimate.loss_0']
    with torch.autocast('cpu', torch.bfloat16):
        loss = losses_of(model, classification_batch())['penultimate.loss_0']
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(exact.item(), rel=0.1)
    loss.backward()
    assert model.backbone.conv1.weight.grad.isfinite().all()


def test_several_labels_and_one_more_linear_layer():
    from mmpretrain.structures import DataSample

    def labeled(width, **neck):
        model = classifier(width)
        model['head'] = dict(type='MultiLabelLinearClsHead', num_classes=10, in_channels=128)
        model.neck = dict(model.neck, **neck) if not neck else dict(neck, type='LinearNeck')
        return model

    student = labeled(8, in_channels=64, out_channels=128, gap_dim=2, norm_cfg=None)
    batch = dict(inputs=classification_batch()['inputs'],
                 data_samples=[DataSample(metainfo=dict(num_classes=10)).set_gt_label(label)
                               for label in ([1, 4], [2])])
    model = hashed(student, labeled(16))
    losses = losses_of(model, batch)
    losses['penultimate.loss_0'].backward()
    assert losses['loss'] > 0 and model.neck.fc.weight.grad.any() and model.head.fc.weight.grad is None
    model = hashed(student, labeled(16), only_correct=True)
    with pytest.raises(ConfigError, match=r'penultimate.only_correct: .* has the labels \[1, 4\]'):
        losses_of(model, batch)


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_an_error(value):
    feature, target = torch.randn(4, 8), reading(torch.randn(4, 8))
    objective = prepared(reading(feature), target, bias='zero', with_l2=False)
    objective(reading(feature), [target])
    feature[2, 3] = value
    with pytest.raises(RuntimeError, match=f'{KEY}: the loss is not finite.*clip_grad.*with_l2=True.*warmup'):
        objective(reading(feature), [target])


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_on_a_gpu_no_step_waits_for_the_check():
    guard = FiniteGuard(KEY)
    torch.cuda.set_sync_debug_mode('error')
    try:
        guard.check([torch.full((), math.nan, device='cuda')])
    finally:
        torch.cuda.set_sync_debug_mode('default')
    torch.cuda.synchronize()
    with pytest.raises(RuntimeError, match='the loss is not finite'):
        guard.check([torch.zeros((), device='cuda')])


@pytest.mark.parametrize('options, words', [
    (dict(bias='middle'), "bias: expected 'median', 'mean' or 'zero', got 'middle'"),
    (dict(kind='cosine'), "kind: expected 'bce', 'l1' or 'l2', got 'cosine'"),
    (dict(hashes=0), 'hashes: expected a positive number, got 0'),
    (dict(std=-1), "std: expected 'classifier' or a positive number, got -1"),
    (dict(std='large'), "got 'large'"),
    (dict(max_samples=1.5), 'max_samples: expected a positive number, got 1.5'),
    (dict(taps=['neck']), "std: 'neck' is not the input of the teacher's classifier, so that has to be named"),
    (dict(taps=['neck'], only_correct=True), "'neck' is not the input of the teacher's classifier"),
    (dict(taps=['neck:in']), "std: the teacher's 'neck' is no classifier with weights that vary; name it"),
    (dict(taps=['neck'], classifier='fc'), "std: the teacher's 'fc' is no classifier"),
    (dict(taps=['backbone'], classifier='head.fc', only_correct=True), 'only_correct: images count or do not')])
def test_options_that_cannot_be(options, words):
    with pytest.raises(ConfigError) as error:
        hashed(classifier(), classifier(), **options)
    assert str(error.value).startswith(KEY) and words in str(error.value)


def test_other_widths_name_both_ways_out():
    with pytest.raises(ConfigError) as error:
        hashed(classifier(), classifier(16))
    assert str(error.value).startswith(f'{KEY}.connector: ') and '2FC' in str(error.value)
    assert "64 channels and the teacher feature 128; use connector=dict(type='Conv1x1')" in str(error.value)


# --- hashing: box heads ----------------------------------------------------------------------


def boxes(student=None, teacher_model=None, **options):
    return distiller(student or detector(), teacher(teacher_model or detector(16, 32)),
                     dict(box=dict(type='LSHRoI', **options)))


@pytest.mark.parametrize('make', [detector, cascade])
def test_both_box_heads_run_on_the_proposals_of_the_student(make):
    model = boxes(teacher_model=make())
    other = model.teachers[0].model
    stages = other.roi_head.bbox_head if make is cascade else [other.roi_head.bbox_head]
    extractors = other.roi_head.bbox_roi_extractor if make is cascade else [other.roi_head.bbox_roi_extractor]
    idle = [count_calls(part) for part in [other.rpn_head, *(stage.fc_cls for stage in stages), *stages[1:]]]
    seen = {}
    model.roi_head.bbox_roi_extractor.register_forward_hook(lambda _, args, out: seen.update(rois=args[1]))
    model.roi_head.bbox_head.fc_cls.register_forward_hook(lambda _, args, out: seen.update(own=args[0]))
    extractors[0].register_forward_hook(lambda _, args, out: seen.update(target=(args, out)))
    loss = losses_of(model, detection_batch())['box.loss_0']
    levels, rois = seen['target'][0]
    assert torch.equal(rois, seen['rois']) and len(rois) == len(seen['own']) == 16 and len(levels) == 4
    [hashing] = model.objectives['box'].hashings
    assert hashing.weight.shape == (64, 16)
    assert hashing.weight.std().item() == pytest.approx(stages[0].fc_cls.weight.std().item(), rel=0.1)
    target = box_feature(other, levels, rois)
    torch.testing.assert_close(loss, 7 * lsh(seen['own'], target, weight=hashing.weight, bias=torch.zeros(64),
                                             with_l2=True))
    assert idle == [[] for _ in idle]
    loss.backward()
    assert model.backbone.conv1.weight.grad.any() and model.roi_head.bbox_head.fc_cls.weight.grad is None


def test_without_proposals_there_is_no_loss():
    model = boxes()
    model.roi_head.bbox_sampler.num = 0
    losses = losses_of(model, detection_batch((64, 64)))
    assert losses['box.loss_0'] == 0
    losses['box.loss_0'].backward()
    assert not model.roi_head.bbox_head.shared_fcs[0].weight.grad.any()


def test_a_box_head_of_another_width_needs_a_connector():
    wide = detector()
    wide.roi_head.bbox_head.fc_out_channels = 24
    with pytest.raises(ConfigError, match='box.connector: hashing compares vectors of one width'):
        boxes(teacher_model=wide)
    assert losses_of(boxes(teacher_model=wide, connector=dict(type='Conv1x1')), detection_batch())['box.loss_0'] > 0


@pytest.mark.parametrize('options, words', [
    (dict(bias='median'), "model.objectives.box: bias: 'median' is that of features .* when there are no proposals"),
    (dict(teacher_model=stock('mmdet::_base_/models/rpn_r50_fpn.py')), 'model.objectives.box: RPN has no roi_head')])
def test_box_heads_that_cannot_be_matched(options, words):
    with pytest.raises(ConfigError, match=words):
        boxes(**options)


# --- hashing: in a training ------------------------------------------------------------------

DEMO = 'lsh/lsh_resnet18-w8-2fc_digits.py'


def short(tmp_path, config=DEMO, **options):
    options = dict(train_cfg__max_epochs=1, train_dataloader__num_workers=0, train_dataloader__batch_size=16,
                   train_dataloader__num_batch_per_epoch=2) | options
    cfg = small(config, tmp_path, **options)
    cfg.update({f'val_{part}': None for part in ('cfg', 'dataloader', 'evaluator')})
    cfg.default_hooks.checkpoint.save_best = None
    return cfg


def test_offsets_are_kept_for_resuming_and_alignment_is_measured(in_digits, tmp_path, monkeypatch):
    passes, show = [], statistics_hook._show
    monkeypatch.setattr(statistics_hook, '_show', lambda *args: passes.append(1) or show(*args))

    def trained(**options):
        cfg = short(tmp_path, **options)
        cfg.custom_hooks.append(dict(type='mmfeatdistill.AlignmentHook', interval=1))
        return train(cfg)

    runner = trained()
    assert -1 <= runner.message_hub.get_scalar('train/penultimate.cosine_0').current() <= 1
    [found] = runner.model.objectives['penultimate'].hashings
    assert found.bias.any() and found.is_known
    [resumed] = trained(train_cfg__max_epochs=2, resume=True).model.objectives['penultimate'].hashings
    assert passes == [1] and torch.equal(resumed.bias, found.bias) and torch.equal(resumed.weight, found.weight)
