import copy
import dataclasses

import pytest
import torch

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.losses import decoupled, standardize_logits
from mmfeatdistill.taps.reader import TappedPass
from tests.helpers.models import (
    classification_batch,
    classifier,
    count_calls,
    detector,
    distiller,
    losses_of,
    segmentation_batch,
    segmenter,
    teacher,
)

DKD = dict(type='Decoupled', taps=['head.fc'])


def model_with(teachers=None, **options):
    return distiller(classifier(), teachers or teacher(classifier(16)), dict(logits={**DKD, **options}))


def logits_of(network):
    """A list that gets the logits of each pass, with their graph."""
    seen = []
    network.head.fc.register_forward_hook(lambda _, args, out: seen.append(out))
    return seen


@pytest.mark.parametrize('options, used', [
    (dict(), dict(alpha=1, beta=8, tau=4)), (dict(standardize=True), dict(alpha=1, beta=8, tau=4)),
    (dict(alpha=2, beta=0.5, tau=1), dict(alpha=2, beta=0.5, tau=1))])
def test_it_is_the_loss_with_the_labels_of_the_batch(options, used):
    model = model_with(loss_weight=3, **options)
    student = logits_of(model)
    data = model.data_preprocessor(classification_batch(*[(64, 64)] * 4), training=True)
    losses = model(**data, mode='loss')
    with torch.no_grad():
        target = model.teachers[0].model.eval()(data['inputs'], mode='tensor')
        target = model.teachers[0].model.head.fc(target[0]) if isinstance(target, tuple) else target
    if options.get('standardize'):
        student, target = [standardize_logits(student[0])], standardize_logits(target)
    expected = 3 * decoupled(student[0], target, labels=torch.tensor([0, 1, 2, 3]), **used)
    torch.testing.assert_close(losses['logits.loss_0'], expected)
    losses['logits.loss_0'].backward()
    assert model.backbone.conv1.weight.grad.any()
    assert all(parameter.grad is None for parameter in model.teachers[0].model.parameters())


def test_the_labels_decide():
    model = model_with(alpha=1, beta=0).eval()  # without dropout or statistics: two passes agree
    batch = classification_batch(*[(64, 64)] * 4)
    first = losses_of(model, batch)['logits.loss_0']
    for sample in batch['data_samples']:
        sample.set_gt_label(9 - sample.gt_label)
    assert first != losses_of(model, batch)['logits.loss_0']


def test_of_mixed_images_the_greatest_share_counts():
    model = model_with().eval()
    batch = classification_batch((64, 64), (64, 64))
    mixed = copy.deepcopy(batch)
    for sample, share in zip(mixed['data_samples'], (0.6, 0.7)):
        scores = torch.zeros(10)
        scores[sample.gt_label], scores[5] = share, 1 - share
        sample.set_gt_score(scores)
    torch.testing.assert_close(*(losses_of(model, b)['logits.loss_0'] for b in (batch, mixed)))


def test_teacher_by_teacher():
    model = model_with([teacher(classifier(16)), teacher(classifier(12))])
    calls = [count_calls(network.backbone.conv1) for network in (model, *(t.model for t in model.teachers))]
    losses = losses_of(model, classification_batch())
    assert [name for name in losses if '.' in name] == ['logits.loss_0', 'logits.loss_1']
    assert list(map(len, calls)) == [1, 1, 1] and losses['logits.loss_0'] != losses['logits.loss_1']


@pytest.mark.parametrize('options, message', [
    (dict(taps=['backbone']), r"logits: taps: 'backbone' gives \[\(1, 64, 2, 2\)\]; expected the logits"),
    (dict(taps=[dict(student='head.fc', teacher='neck')]), r'logits: .*same shape, got \(1, 10\) and \(1, 128\)'),
    (dict(tau=0), 'logits: tau must be positive, got 0'),
    (dict(temperature=4), "there is no such option; there is 'taps', 'alpha', 'beta', 'tau'")])
def test_what_cannot_be_matched_is_found_before_training(options, message):
    with pytest.raises(ConfigError, match=message):
        model_with(**options)


def test_a_dense_predictor_has_no_logits_of_this_kind():
    with pytest.raises(ConfigError, match=r"taps: 'decode_head.conv_seg' gives .*expected the logits of a classifier"):
        distiller(segmenter(), teacher(segmenter(16)), dict(logits=dict(DKD, taps=['decode_head.conv_seg'])))


def test_logits_of_a_detector_are_those_of_regions():
    """One row for each proposal, and the two networks have other proposals."""
    with pytest.raises(ConfigError, match=r'logits: taps: a tap gives \d+ rows for one image, as box heads do'):
        distiller(detector(), teacher(detector(16, 32)), dict(logits=dict(DKD, taps=['roi_head.bbox_head.fc_cls'])))


def test_images_without_a_class():
    model = model_with()
    reading = TappedPass({'head.fc': [torch.rand(2, 10)]}, model.reader, torch.rand(2, 3, 64, 64))
    for samples in (None, segmentation_batch()['data_samples']):
        with pytest.raises(ValueError, match='the data samples have no class'):
            model.objectives['logits'](dataclasses.replace(reading, data_samples=samples), [reading])
