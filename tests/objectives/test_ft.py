"""Factor Transfer with its paraphraser."""
from pathlib import Path

import numpy as np
import pytest
import torch

from mmfeatdistill.objectives import FT
from mmfeatdistill.taps.reader import TappedPass, TapReader
from tests.helpers.models import classification_batch, classifier, distiller, losses_of, segmenter, teacher

GOLDEN = Path(__file__).parents[1] / 'data' / 'golden' / 'factor_transfer.npz'


@pytest.fixture(scope='module')
def golden():
    with np.load(GOLDEN) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def reading(feature):
    return TappedPass({'0': [feature]}, TapReader(torch.nn.Sequential(torch.nn.ReLU()), ['0'], 'net'), feature)


def test_it_agrees_with_the_authors_code(golden):
    """Value and gradient, with their weights; the loss is theirs without the weight of 500."""
    objective = FT(taps=['0'], loss_weight=1)
    student = golden['student_feature'].requires_grad_()
    target = golden['teacher_feature']
    objective.prepare(reading(student[:1].detach()), [reading(target[:1])], key='ft')
    [paraphraser], [translator] = objective.paraphrasers, objective.connectors
    with torch.no_grad():
        for half, name in ((paraphraser.encoder, 'paraphraser.conv'), (paraphraser.decoder, 'paraphraser.deconv'),
                           (translator, 'translator.conv')):
            for index in range(3):
                for part in ('weight', 'bias'):
                    getattr(half[2 * index], part).copy_(golden[f'{name}{index}.{part}'])
    factor, reconstruction = paraphraser(target)
    torch.testing.assert_close(factor, golden['teacher_factor'], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(reconstruction, golden['reconstruction'], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(translator(student), golden['student_factor'], rtol=1e-5, atol=1e-6)
    losses = objective(reading(student), [reading(target)])
    torch.testing.assert_close(losses['loss_paraphrase_0'], golden['reconstruction_l1'], rtol=1e-6, atol=0)
    torch.testing.assert_close(losses['loss_0'], golden['ft_loss'], rtol=1e-6, atol=0)
    [gradient] = torch.autograd.grad(losses['loss_0'], [student])
    torch.testing.assert_close(gradient, golden['ft_grad_student'], rtol=1e-5, atol=1e-8)


def test_each_loss_teaches_its_own_side():
    model = distiller(classifier(), teacher(classifier(16)), dict(ft=dict(type='FT', taps=['backbone'])))
    losses = losses_of(model.train(), classification_batch((64, 64), (64, 64)))
    objective, weights = model.objectives['ft'], list(model.student.backbone.parameters())
    assert objective.paraphrasers[0].encoder[4].out_channels == 64  # half of the teacher's 128
    sides = dict(student=weights, translator=list(objective.connectors.parameters()),
                 paraphraser=list(objective.paraphrasers.parameters()))
    for loss, reached in (('ft.loss_0', {'student', 'translator'}), ('ft.loss_paraphrase_0', {'paraphraser'})):
        for side, parameters in sides.items():
            gradients = torch.autograd.grad(losses[loss], parameters, retain_graph=True, allow_unused=True)
            assert any(gradient is not None for gradient in gradients) == (side in reached), (loss, side)
    assert not any(parameter.requires_grad for parameter in model.teachers[0].model.parameters())


def test_several_teachers_and_taps_have_paraphrasers_of_their_own():
    taps = ['backbone.layer3', 'backbone.layer4']
    model = distiller(segmenter(), [teacher(segmenter(16)), teacher(segmenter(12))],
                      dict(ft=dict(type='FT', taps=taps, rate=0.25)))
    widths = [paraphraser.encoder[4].out_channels for paraphraser in model.objectives['ft'].paraphrasers]
    assert widths == [16, 32, 12, 24]


@pytest.mark.parametrize('rate', [0, -1, None])
def test_a_rate_that_is_none(rate):
    with pytest.raises(ValueError, match='rate: expected a positive number, got'):
        FT(taps=['backbone'], rate=rate)
