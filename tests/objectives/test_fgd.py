"""FGD: against its authors' code, its masks by hand, and what it promises as an objective."""
import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmfeatdistill.connectors.global_block import GlobalBlock
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.losses.fgd import attention_error, channel_attention, focal, global_relation, spatial_attention
from mmfeatdistill.objectives import FGD
from mmfeatdistill.objectives.box_masks import box_masks
from mmfeatdistill.taps.reader import TappedPass, TapReader
from tests.helpers.models import (
    classification_batch,
    classifier,
    detection_batch,
    detector,
    distiller,
    losses_of,
    segmenter,
    teacher,
)

GOLDEN = np.load(Path(__file__).parents[1] / 'data' / 'golden' / 'fgd.npz')
G = {name: torch.from_numpy(GOLDEN[name]) for name in GOLDEN.files}
BOXES = [G[f'boxes{image}'] for image in range(4)]
SIZES = [tuple(size) for size in G['image_sizes'].tolist()]
ONE_STAGE = dict(foreground_weight=1e-3, background_weight=5e-4, attention_weight=5e-4, global_weight=5e-6)
FPN = dict(type='FGD', taps=['neck'])


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def with_weights_of(side: str) -> GlobalBlock:
    """The authors' block of the student, ``'s'``, or the teacher, ``'t'``."""
    block = GlobalBlock(8)
    layers = {block.score: f'conv_mask_{side}', **{block.transform[i]: f'channel_add_conv_{side}.{i}'
                                                   for i in (0, 1, 3)}}
    with torch.no_grad():
        for layer, name in layers.items():
            for part in ('weight', 'bias'):
                getattr(layer, part).copy_(G[f'{name}.{part}'].view_as(getattr(layer, part)))
    return block


def masks():
    return box_masks(BOXES, SIZES, (10, 12))


def test_masks_and_attentions_of_the_authors():
    for mask, name in zip(masks(), ('foreground', 'background')):
        torch.testing.assert_close(mask, G[f'mask_{name}'], rtol=1e-6, atol=0)
    for tau in (0.5, 0.8):
        for side in ('student', 'teacher'):
            close(channel_attention(G[side], tau), G[f'T{tau}_channel_attention_{side}'])
            close(spatial_attention(G[side], tau), G[f'T{tau}_spatial_attention_{side}'])


@pytest.mark.parametrize('tau', [0.5, 0.8])
@pytest.mark.parametrize('term', ['foreground', 'background', 'attention', 'relation'])
def test_each_term_of_the_authors(term, tau):
    student, target = G['student'].clone().requires_grad_(), G['teacher']
    if term == 'relation':
        name = term
        loss = global_relation(student, target, student_block=with_weights_of('s'), teacher_block=with_weights_of('t'))
    else:
        name = f'T{tau}_{term}'
        loss = attention_error(student, target, tau=tau) if term == 'attention' else (
            focal(student, target, masks=masks(), tau=tau)[int(term == 'background')])
    loss.backward()
    assert loss.item() == pytest.approx(G[f'{name}_loss'].item(), rel=1e-6)
    close(student.grad, G[f'{name}_grad_student'])


def samples(boxes=BOXES, sizes=SIZES):
    return [DetDataSample(gt_instances=InstanceData(bboxes=of_image), metainfo=dict(img_shape=size))
            for of_image, size in zip(boxes, sizes)]


def reading(feature, data_samples=None, size=(80, 96)):
    reader = TapReader(torch.nn.Sequential(torch.nn.ReLU()), ['0'], 'net')
    return TappedPass({'0': [feature]}, reader, torch.zeros(len(feature), 3, *size), data_samples)


def prepared(student, **options):
    objective = FGD(taps=['0'], **options)
    objective.prepare(reading(student[:1].detach()), [reading(G['teacher'][:1])], 'model.objectives.fgd')
    return objective


@pytest.mark.parametrize('name, options', [
    ('one_stage', ONE_STAGE), ('two_stage', {}), ('narrow', ONE_STAGE),
    ('anchor_free', dict(tau=0.8, foreground_weight=1.6e-3, background_weight=8e-4, attention_weight=8e-4,
                         global_weight=8e-6))])
def test_the_objective_is_the_authors_with_their_geometry(name, options):
    student = G['narrow_student' if name == 'narrow' else 'student'].clone().requires_grad_()
    objective = prepared(student, boxes_in='image', **options)
    objective.student_blocks[0], objective.teacher_blocks[0] = with_weights_of('s'), with_weights_of('t')
    if name == 'narrow':
        with torch.no_grad():
            objective.connectors[0].weight.copy_(G['narrow_align.weight'])
            objective.connectors[0].bias.copy_(G['narrow_align.bias'])
    losses = objective(reading(student, samples()), [reading(G['teacher'])])
    total = sum(losses.values())
    total.backward()
    assert total.item() == pytest.approx(G[f'{name}_loss'].item(), rel=1e-6)
    close(student.grad, G[f'{name}_grad_student'])
    assert all(parameter.grad is not None for parameter in objective.parameters())


def test_blocks_start_as_those_of_the_authors():
    torch.manual_seed(0)
    block = GlobalBlock(512)
    assert not block.transform[3].weight.any() and not block.transform[3].bias.any()
    assert not G['init_channel_add_conv_s.3.weight'].any() and torch.equal(block.score.bias, G['init_conv_mask_s.bias'])
    assert block.score.weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.1)
    feature = torch.randn(2, 512, 3, 4)
    assert torch.equal(block(feature), feature)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_the_mean_over_positions_is_taken_in_float32(dtype):
    block = with_weights_of('s').to(dtype)
    feature = torch.randn(2, 8, 64, 64)
    expected = (feature.to(dtype).float().flatten(2).softmax(2)[:, :1] * 0 + 1 / 4096) @ torch.ones(4096, 1)
    assert expected.allclose(torch.ones(2, 1, 1))
    with torch.no_grad():
        block.score.weight.zero_()
        block.transform[0].weight.copy_(torch.eye(8)[:4])
    seen = []
    block.transform.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    block(feature.to(dtype))
    torch.testing.assert_close(seen[0], feature.to(dtype).float().mean((2, 3)).to(dtype), rtol=0, atol=1e-6)


def ones(*cells, size=(4, 6)):
    """A map of ones at some cells (rows, columns), each a slice or a number."""
    mask = torch.zeros(size)
    for rows, columns in cells:
        mask[rows, columns] = 1
    return mask


@pytest.mark.parametrize('box, rows, columns, area', [
    ([8, 8, 15.5, 15.5], slice(1, 3), slice(1, 3), 4),    # both ends included
    ([8, 8, 16, 16], slice(1, 3), slice(1, 3), 4),        # on a cell's border, the next one too
    ([8.1, 8.1, 16.1, 16.1], slice(1, 4), slice(1, 4), 9),
    ([40, 24, 48, 32], slice(3, 4), slice(5, 6), 4),      # up to the edge: one row and column beyond count
    ([0, 0, 48, 32], slice(0, 4), slice(0, 6), 35),
    ([20, 9, 20, 9], slice(1, 3), slice(2, 4), 4)])       # of no size
def test_a_box_holds_its_cells_rounded_outwards(box, rows, columns, area):
    foreground, background = box_masks([torch.tensor([box], dtype=torch.float32)], [(32, 48)], (4, 6))
    inside = ones((rows, columns))
    torch.testing.assert_close(foreground[0], inside / area)
    torch.testing.assert_close(background[0], (1 - inside) / max(24 - inside.sum(), 1))


def test_of_boxes_that_overlap_the_smallest_counts_and_images_do_not_mix():
    boxes = torch.tensor([[0., 0, 47, 31], [8, 8, 15, 15], [10, 10, 11, 11]]).repeat(20, 1)  # more than at once
    foreground, background = box_masks([boxes, boxes[:0], boxes[1:2]], [(32, 48)] * 3, (4, 6))
    expected = ones((slice(0, 4), slice(0, 6))) / 35
    expected[1:3, 1:3] = 1 / 4
    torch.testing.assert_close(foreground[0], expected)
    assert not background[0].any(), 'where all is an object, there is no background'
    assert not foreground[1].any()
    torch.testing.assert_close(background[1], torch.full((4, 6), 1 / 24))
    torch.testing.assert_close(foreground[2], ones((slice(1, 3), slice(1, 3))) / 4)


def test_corners_between_two_cells_stay_there():
    """24 / 1344 * 168 is 3.0000002 in float32, of which the upper integer is 4."""
    foreground, _ = box_masks([torch.tensor([[0., 0, 24, 24]])], [(1344, 1344)], (168, 168))
    assert (foreground > 0).sum() == 16


def test_boxes_of_padded_images_lie_where_they_are_by_default_and_are_stretched_by_the_authors_rule():
    boxes, target = [torch.tensor([[16., 16, 31, 31]])], torch.randn(1, 8, 8, 8)
    student = target.clone()
    student[:, :, 2:4, 2:4] += 1  # at stride 8, the object
    found = {}
    for boxes_in in ('batch', 'image'):
        objective = FGD(taps=['0'], boxes_in=boxes_in, background_weight=1, foreground_weight=1)
        objective.prepare(reading(student), [reading(target)], 'fgd')
        passed = reading(student, samples(boxes, [(32, 32)]), size=(64, 64))
        found[boxes_in] = objective(passed, [reading(target)])
    assert found['batch']['loss_foreground'] > 0 == found['batch']['loss_background']
    assert found['image']['loss_background'] > 0 == found['image']['loss_foreground']


def detected(**options):
    return distiller(detector(), teacher(detector(16, 32)), dict(fgd=dict(FPN, **options)))


def test_a_detector_learns_and_every_module_takes_part_also_without_boxes():
    model = detected()
    batch = detection_batch((64, 96), (70, 64))
    for sample in batch['data_samples']:
        sample.gt_instances = sample.gt_instances[:0]
    for data in (batch, detection_batch((64, 64))):  # no boxes, and a batch of one
        model.zero_grad()
        losses = losses_of(model, data)
        assert {name for name in losses if '.' in name} == {
            f'fgd.loss_{term}' for term in ('foreground', 'background', 'attention', 'global')}
        assert all(losses[name].isfinite() and losses[name].dtype == torch.float32 for name in losses if '.' in name)
        sum(value for name, value in losses.items() if '.' in name).backward()
        assert model.backbone.conv1.weight.grad.any()
        assert all(parameter.grad is not None for parameter in model.distiller.parameters())
        assert (losses['fgd.loss_foreground'] == 0) == (data is batch)
    assert all(parameter.grad is None for parameter in model.teachers[0].model.parameters())


def test_ignored_boxes_are_background():
    model = detected().eval()
    plain, ignoring = detection_batch((64, 64)), detection_batch((64, 64))
    ignoring['inputs'] = plain['inputs']
    [sample] = ignoring['data_samples']
    sample.ignored_instances = InstanceData(bboxes=torch.tensor([[0., 0, 63, 63]]))
    first, second = (losses_of(model, copy.deepcopy(batch)) for batch in (plain, ignoring))
    assert all(torch.equal(first[name], second[name]) for name in first if name.startswith('fgd.'))


def test_a_twin_has_nothing_to_learn_at_first():
    model = distiller(detector(), teacher(detector()), dict(fgd=dict(FPN)))
    model.teachers[0].model.load_state_dict(
        {name: value for name, value in model.state_dict().items() if not name.startswith('distiller.')})
    losses = losses_of(model.eval(), detection_batch())
    assert all(value < 1e-9 for name, value in losses.items() if name.startswith('fgd.'))


@pytest.mark.parametrize('make, tap, words', [
    (classifier, 'backbone', 'objectives.fgd: FGD needs the boxes of the batch, .* ImageClassifier of mmpretrain'),
    (segmenter, 'backbone[-1]', 'model.objectives.fgd: FGD needs the boxes of the batch, .* of mmseg has none'),
    (detector, dict(student='neck[0]', teacher='neck[1]'),
     r'fgd.taps: the two maps must have the same size, .* \(1, 16, 16, 16\), .* \(1, 32, 8, 8\)'),
    (detector, 'roi_head.bbox_head.fc_cls:in', r'fgd.taps: a tap gives \d+ rows')])
def test_what_cannot_work_is_refused_when_it_is_built(make, tap, words):
    with pytest.raises(ConfigError, match=words):
        distiller(make(), teacher(make(*((16, 32) if make is detector else (16,)))), dict(fgd=dict(FPN, taps=[tap])))


@pytest.mark.parametrize('options, words', [
    (dict(tau=0), 'model.objectives.fgd: tau must be positive, got 0'),
    (dict(boxes_in='pad'), "model.objectives.fgd: boxes_in: expected 'batch' or 'image', got 'pad'"),
    (dict(alpha=1e-3), 'fgd.alpha: there is no such option')])
def test_wrong_options(options, words):
    with pytest.raises(ConfigError, match=words):
        detected(**options)


@pytest.mark.parametrize('data_samples, words', [
    (None, "the data samples have no boxes .*got None"),
    (classification_batch()['data_samples'], 'the data samples have no boxes .*got .DataSample'),
    (samples([torch.zeros(2, 5)], [(80, 96)]), r'boxes of the shape \(B, 4\) are needed, .* got \(2, 5\); rotated')])
def test_batches_without_boxes_of_this_kind(data_samples, words):
    objective = prepared(G['student'])
    passed = dataclasses.replace(reading(G['student'][:1]), data_samples=data_samples)
    with pytest.raises(ValueError, match=words):
        objective(passed, [reading(G['teacher'][:1])])


def test_boxes_in_a_class_of_mmdet():
    from mmdet.structures.bbox import HorizontalBoxes
    objective = prepared(G['student'], boxes_in='image')
    first, second = (objective(reading(G['student'], of), [reading(G['teacher'])]) for of in (
        samples(), samples([HorizontalBoxes(boxes) for boxes in BOXES])))
    assert all(torch.equal(first[name], second[name]) for name in first)
