"""Every registered loss serves in a FeatureMatch, on feature maps or on logits."""
import pytest
import torch
from torch import nn

from mmfeatdistill import losses
from tests.models import classification_batch, classifier, distiller, losses_of, teacher

LOSSES = sorted(name for name in losses.__all__
                if isinstance(getattr(losses, name), type) and issubclass(getattr(losses, name), nn.Module))
ON_LOGITS = {'KLDivergence', 'DIST'}


@pytest.mark.parametrize('loss', LOSSES)
def test_a_loss_trains_student_and_connector_and_follows_its_weight(loss):
    taps = ['head.fc'] if loss in ON_LOGITS else ['backbone']

    def run(weight):
        torch.manual_seed(0)
        objective = dict(type='FeatureMatch', taps=taps, loss=dict(type=loss, loss_weight=weight),
                         connector=dict(type='Identity' if loss in ON_LOGITS else 'Conv1x1'))
        model = distiller(classifier(), teacher(classifier(16)), dict(match=objective))
        model.init_weights()
        torch.manual_seed(1)
        value = losses_of(model, classification_batch(*[(64, 64)] * 4))['match.loss_0']
        value.backward()
        return model, value

    model, value = run(1.0)
    assert value.isfinite() and value > 0 and value.dtype == torch.float32
    assert model.backbone.conv1.weight.grad.any()
    assert all(parameter.grad is not None for parameter in model.distiller.parameters())
    torch.testing.assert_close(run(0.5)[1], 0.5 * value)
