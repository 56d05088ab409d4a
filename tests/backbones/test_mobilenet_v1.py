"""MobileNetV1: the published size, and pre-activations that BatchNorm tells the margins of."""
import pytest
import torch
from torch import nn

from mmfeatdistill.backbones import MobileNetV1
from tests.helpers.models import classification_batch, classifier, distiller, losses_of, teacher

STAGES = [f'backbone.layer{stage}:pre' for stage in (1, 2, 3, 4)]


def test_it_has_as_many_parameters_and_operations_as_published():
    with torch.device('meta'):
        network = nn.ModuleList([MobileNetV1(), nn.Linear(1024, 1000)])
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(4.2, abs=0.05)
    operations = []
    for module in network[0].modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, args, output: operations.append(
                output[0, 0].numel() * m.weight.numel()))
    network[0](torch.zeros(1, 3, 224, 224, device='meta'))
    assert len(operations) == 27 and sum(operations) / 1e6 == pytest.approx(569 - 1, abs=1)


@pytest.mark.parametrize('out_indices', [(), (4, ), (-1, )])
def test_stages_that_are_not_there(out_indices):
    with pytest.raises(ValueError, match='out_indices: there are the stages 0, 1, 2 and 3, got'):
        MobileNetV1(out_indices)


def test_it_learns_from_a_resnet_by_pre_activations():
    student = classifier()
    student.backbone = dict(type='mmfeatdistill.MobileNetV1')
    student['head'].in_channels = 1024
    model = distiller(student, teacher(classifier(16)), dict(
        ofd=dict(type='OFD', taps=STAGES), fcfd=dict(type='FCFD', taps=STAGES, output='head.fc')))
    assert not any(len(bridge) == 3 for bridge in model.objectives['fcfd'].to_student)
    losses = losses_of(model.train(), classification_batch((64, 64), (64, 64)))
    model.parse_losses(losses)[0].backward()
    assert all(losses[f'ofd.loss_{stage}'] > 0 for stage in range(4))
