"""Every registered loss serves in a FeatureMatch, on feature maps or on logits."""
import pytest
import torch
from torch import nn

from mmfeatdistill import losses
from mmfeatdistill.errors import ConfigError
from tests.helpers.models import classification_batch, classifier, distiller, losses_of, teacher

LOSSES = sorted(name for name in losses.__all__
                if isinstance(getattr(losses, name), type) and issubclass(getattr(losses, name), nn.Module))
ON_LOGITS = {'KLDivergence', 'DIST'}
OF_ANY_WIDTH = {'AttentionTransfer', 'RelationalAngle', 'RelationalDistance'}
CONNECTORS = {name: None if name in ON_LOGITS | OF_ANY_WIDTH else dict(type='Conv1x1') for name in LOSSES} | {
    'FactorTransfer': dict(type='Translator')}
PAIRS = [*CONNECTORS.items(), ('SquaredError', dict(type='MaskedGenerator', mask_ratio=0.5)),
         ('SquaredError', dict(type='ChannelMLP')), ('ActivationBoundary', dict(type='ConvBN'))]


def objective(loss, connector):
    return dict(type='FeatureMatch', taps=['head.fc'] if loss['type'] in ON_LOGITS else ['backbone'], loss=loss,
                connector=connector)


@pytest.mark.parametrize('loss, connector', PAIRS, ids=str)
def test_a_loss_trains_student_and_connector_and_follows_its_weight(loss, connector):
    def run(weight):
        torch.manual_seed(0)
        match = objective(dict(type=loss, loss_weight=weight), connector)
        model = distiller(classifier(), teacher(classifier(16)), dict(match=match))
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


@pytest.mark.parametrize('loss', sorted(set(LOSSES) - ON_LOGITS - OF_ANY_WIDTH))
def test_other_losses_ask_for_a_connector_where_widths_differ(loss):
    with pytest.raises(ConfigError, match=r"and the teacher feature 128; use connector=dict\(type='Conv1x1'"):
        distiller(classifier(), teacher(classifier(16)), dict(match=objective(dict(type=loss), None)))


def test_pre_activations_of_all_stages_for_activation_boundaries():
    """AB compares what goes into the ReLU that ends a stage: half of it is negative."""
    match = dict(type='FeatureMatch', taps=[f'backbone.layer{stage}:pre' for stage in (1, 2, 3, 4)],
                 connector=dict(type='ConvBN'), loss=dict(type='ActivationBoundary'))
    model = distiller(classifier(), teacher(classifier(16)), dict(stages=match))
    seen = []
    model.objectives['stages'].loss.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    losses_of(model, classification_batch())
    assert len(seen) == 4 and all((target < 0).any() and (target > 0).any() for target in seen)
