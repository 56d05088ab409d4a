"""ReviewKD: against its authors' code, and what it promises as an objective."""
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmfeatdistill.connectors.attention_fusion import AttentionFusion
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.losses import hierarchical_context
from mmfeatdistill.objectives import ReviewKD
from mmfeatdistill.taps.reader import TappedPass, TapReader
from tests.helpers.models import (
    classification_batch,
    classifier,
    detection_batch,
    detector,
    distiller,
    losses_of,
    teacher,
)

GOLDEN = np.load(Path(__file__).parents[1] / 'data' / 'golden' / 'reviewkd.npz')
G = {name: torch.from_numpy(GOLDEN[name]) for name in GOLDEN.files}
STAGES = [*(f'backbone.layer{stage}:pre' for stage in (1, 2, 3, 4)), 'neck']
# Our names of the layers, and the authors'.
LAYERS = {'reduce.0': 'conv1.0', 'reduce.1': 'conv1.1', 'expand.0': 'conv2.0', 'expand.1': 'conv2.1',
          'attention': 'att_conv.0'}


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def reading(*features):
    reader = TapReader(nn.Sequential(nn.ReLU()), ['0'], 'net')
    return TappedPass({'0': list(features)}, reader, features[0])


def prepared(students, teachers, **options):
    objective = ReviewKD(taps=['0'], **options)
    own, theirs = (reading(*(feature[:1].detach() for feature in features)) for features in (students, teachers))
    objective.prepare(own, [theirs], key='model.objectives.review')
    return objective


@pytest.mark.parametrize('prefix, levels, mid', [('', 5, 4), ('cls_', 4, 5)])
def test_values_gradients_and_statistics_of_the_authors(prefix, levels, mid):
    students = [G[f'{prefix}student{level}'].clone().requires_grad_() for level in range(levels)]
    teachers = [G[f'{prefix}teacher{level}'] for level in range(levels)]
    objective = prepared(students, teachers, mid_channels=mid)
    outputs: dict[int, torch.Tensor] = {}
    for level, fusion in enumerate(objective.fusions):
        layers = dict(fusion.named_modules())
        assert ('attention' in layers) == (level < levels - 1)
        fusion.register_forward_hook(lambda _, args, out, level=level: outputs.update({level: out[0]}))
        with torch.no_grad():
            for ours, theirs in LAYERS.items():
                for part in ('weight', 'bias'):
                    found = G.get(f'{prefix}abf{level}.{theirs}.{part}')
                    own = getattr(layers.get(ours), part, None)
                    assert (own is None) == (found is None), 'convolutions in front of a normalization have no bias'
                    if own is not None:
                        own.copy_(found)
    losses = objective(reading(*students), [reading(*teachers)])
    assert list(losses) == [f'loss_{level}' for level in range(levels)]
    total = sum(losses.values())
    total.backward()
    assert total.item() == pytest.approx(G[f'{prefix}loss'].item(), rel=1e-6)
    for level, fusion in enumerate(objective.fusions):
        close(outputs[level], G[f'{prefix}out{level}'])
        close(students[level].grad, G[f'{prefix}grad_student{level}'])
        if not prefix:
            assert losses[f'loss_{level}'].item() == pytest.approx(G[f'hcl{level}'].item(), rel=1e-6)
            for norm, name in ((fusion.reduce[1], 'conv1.1'), (fusion.expand[1], 'conv2.1')):
                for statistics in ('running_mean', 'running_var'):
                    close(getattr(norm, statistics), G[f'abf{level}.{name}.{statistics}_after'])
        assert all(parameter.grad is not None for parameter in fusion.parameters())


@pytest.mark.parametrize('level', range(6))
def test_the_loss_of_the_authors(level):
    student = G[f'level{level}_student'].clone().requires_grad_()
    loss = hierarchical_context(student, G[f'level{level}_teacher'])
    loss.backward()
    assert loss.item() == pytest.approx(G[f'level{level}_loss'].item(), rel=1e-6)
    close(student.grad, G[f'level{level}_grad'])


def test_a_fusion_starts_as_those_of_the_authors():
    torch.manual_seed(0)
    fusion = AttentionFusion(256, 64, 128, fuses=True)
    for conv, fan_in in ((fusion.reduce[0], 256), (fusion.expand[0], 9 * 64)):
        bound = (3 / fan_in) ** 0.5
        assert conv.weight.abs().max() <= bound
        assert conv.weight.std().item() == pytest.approx(bound / 3 ** 0.5, rel=0.05)
    assert fusion.attention.weight.abs().max() <= (1 / 128) ** 0.5


def test_a_map_of_another_size_than_the_teachers_is_resized_in_front_of_the_last_convolution():
    fusion = AttentionFusion(8, 4, 16, fuses=False).eval()
    feature = torch.randn(2, 8, 6, 4)
    output, fused = fusion(feature, None, (3, 2))
    assert output.shape == (2, 16, 3, 2)
    torch.testing.assert_close(fused, fusion.reduce(feature)[:, :, ::2, ::2])


def test_a_level_learns_from_the_losses_of_the_finer_ones_too():
    students = [torch.randn(2, 6, side, side, requires_grad=True) for side in (8, 4, 2)]
    teachers = [torch.randn(2, 5, side, side) for side in (8, 4, 2)]
    losses = prepared(students, teachers)(reading(*students), [reading(*teachers)])
    for level, loss in enumerate(losses.values()):
        gradients = torch.autograd.grad(loss, students, retain_graph=True, allow_unused=True)
        assert [gradient is not None for gradient in gradients] == [other >= level for other in range(3)]


def test_the_width_of_what_is_handed_on():
    shapes = [(1, 16, 4, 4), (1, 700, 2, 2)]
    features = [torch.zeros(shape) for shape in shapes]
    assert prepared(features, features).fusions[0].reduce[0].out_channels == 512
    assert prepared(features[:1], features[:1]).fusions[0].reduce[0].out_channels == 16
    assert prepared(features, features, mid_channels=24).fusions[1].expand[0].in_channels == 24


@pytest.mark.parametrize('batch', [1, 3])
def test_a_classifier_reviews_its_stages_and_the_pooled_vector(batch):
    """Also in a batch of one, whose pooled vector has no statistics of its own."""
    model = distiller(classifier(), [teacher(classifier(16)), teacher(classifier(12))],
                      dict(review=dict(type='ReviewKD', taps=STAGES)))
    objective = model.objectives['review']
    assert [fusion.attention is None for fusion in objective.fusions] == 2 * [False, False, False, False, True]
    assert [fusion.expand[0].out_channels for fusion in objective.fusions] == [16, 32, 64, 128, 128, 12, 24, 48, 96, 96]
    losses = losses_of(model.train(), classification_batch(*[(64, 96)] * batch))
    added = [name for name in losses if name.startswith('review.')]
    assert added == [f'review.loss_{level}' for level in range(10)]
    assert all(losses[name].isfinite() for name in added)
    sum(losses[name] for name in added).backward()
    assert model.backbone.conv1.weight.grad.any()
    assert all(parameter.grad is not None for parameter in objective.parameters())
    assert all(parameter.grad is None for each in model.teachers for parameter in each.model.parameters())


def test_a_detector_reviews_its_levels_in_mixed_precision():
    model = distiller(detector(), teacher(detector(16, 32)), dict(review=dict(type='ReviewKD', taps=['neck'])))
    with torch.autocast('cpu', torch.bfloat16):
        data = model.data_preprocessor(detection_batch((64, 96), (70, 64)), training=True)
        features, _ = model.reader.read(lambda: model.student.extract_feat(data['inputs']))
        passed = TappedPass(features, model.reader, data['inputs'])
        target = model.teachers[0].start(data['inputs'], data['data_samples'], ['neck'])
        losses = model.objectives['review'](passed, [model.teachers[0].finish(target)])
    assert len(losses) == 5 and all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize('make, taps, words', [
    (classifier, STAGES[::-1], r"review.taps: levels go from the finest to the deepest, and of one image neck\[0\] .* "
                               r'1 x 1 positions and backbone.layer4:pre\[0\] .* 2 x 2; turn the list around'),
    (detector, ['roi_head.bbox_head.fc_cls:in'], r'review.taps: a tap gives \d+ rows')])
def test_what_cannot_work_is_refused_when_it_is_built(make, taps, words):
    with pytest.raises(ConfigError, match=words):
        distiller(make(), teacher(make()), dict(review=dict(type='ReviewKD', taps=taps)))


def test_tokens_that_are_no_grid_are_refused():
    with pytest.raises(ConfigError, match=r"review.taps: the teacher's '0' gives tokens \(9, 6\) that are no grid"):
        prepared([torch.zeros(1, 6, 3, 3)], [torch.zeros(1, 9, 6)])


@pytest.mark.parametrize('mid', [0, -1, 1.5, '8'])
def test_a_width_that_is_none(mid):
    with pytest.raises(ValueError, match='mid_channels: expected a positive integer, got'):
        ReviewKD(taps=['neck'], mid_channels=mid)
