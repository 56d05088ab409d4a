"""Pre-activations and the normalizations in front of them, in stock backbones."""
import pytest
import torch
from mmengine import registry as root
from mmengine.registry import init_default_scope
from torch import nn

from mmfeatdistill.taps.isolation import batch_statistics
from mmfeatdistill.taps.tracing import closing_activation, feeding_norms, trace
from mmfeatdistill.zoo import packages  # noqa: F401
from tests.helpers.models import build, classifier, detector

# backbone, stage, activation that ends it, normalization that tells its distribution
BACKBONES = [
    (dict(type='mmpretrain.ResNet', depth=18), 'layer1', 'layer1.1.relu', 'layer1.1.bn2'),
    (dict(type='mmpretrain.ResNet', depth=50), 'layer4', 'layer4.2.relu', 'layer4.2.bn3'),
    (dict(type='mmpretrain.SEResNet', depth=50), 'layer2', 'layer2.3.relu', 'layer2.3.bn3'),
    (dict(type='mmpretrain.ResNeXt', depth=50), 'layer3', 'layer3.5.relu', 'layer3.5.bn3'),
    (dict(type='mmpretrain.Res2Net', depth=50, scales=4, base_width=26), 'layer1', 'layer1.2.relu', 'layer1.2.bn3'),
    (dict(type='mmpretrain.RegNet', arch='regnetx_400mf'), 'layer1', 'layer1.0.relu', 'layer1.0.bn3'),
    (dict(type='mmpretrain.MobileNetV2'), 'layer3', None, 'layer3.2.conv.2.bn'),
    (dict(type='mmdet.ResNet', depth=18, norm_eval=False), 'layer4', 'layer4.1.relu', 'layer4.1.bn2'),
    (dict(type='mmdet.ResNeXt', depth=50, groups=32, base_width=4), 'layer4', 'layer4.2.relu', 'layer4.2.bn3'),
    (dict(type='mmseg.ResNetV1c', depth=18, norm_cfg=dict(type='BN')), 'layer2', 'layer2.1.relu', 'layer2.1.bn2'),
    (dict(type='mmpretrain.ConvNeXt'), 'stages.0', None, None),
]


@pytest.mark.parametrize('cfg, stage, activation, norm', BACKBONES, ids=lambda value: str(value)[:40])
def test_the_end_of_a_stage(cfg, stage, activation, norm):
    init_default_scope(cfg['type'].split('.')[0])
    model = root.MODELS.build(dict(cfg, init_cfg=None))
    model.eval()
    calls = trace(model, lambda: model(torch.randn(1, 3, 64, 64)))
    assert closing_activation(calls, stage) == activation
    assert feeding_norms(calls, activation or stage, is_input=activation is not None) == [norm]


def test_a_block_with_a_shortcut_has_its_own_norm():
    """The shortcut's normalization runs last."""
    model = build(detector(8)).backbone
    model.eval()
    calls = trace(model, lambda: model(torch.randn(1, 3, 64, 64)))
    assert [call.path for call in calls if call.path.startswith('layer2.0.downsample')]
    assert feeding_norms(calls, 'layer2.0.relu', is_input=True) == ['layer2.0.bn2']


def test_a_norm_behind_the_tap_tells_nothing():
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))).eval()
    calls = trace(model, lambda: model(torch.randn(1, 3, 4, 4)))
    assert feeding_norms(calls, '0', is_input=True) == [None]
    assert feeding_norms(calls, '0', is_input=False) == ['0.1']


def test_several_features_have_several_norms():
    class TwoOutputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.first(x), self.second(x), x + 1

    model = TwoOutputs().eval()
    calls = trace(model, lambda: model(torch.randn(1, 3, 4, 4)))
    assert feeding_norms(calls, '', is_input=False) == ['first', 'second', None]
    with pytest.raises(ValueError, match='gives 3 features'):
        closing_activation(calls, '')


def test_batch_statistics_leave_no_trace():
    model = build(classifier()).eval()
    model.backbone.bn1.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    image = torch.randn(4, 3, 64, 64)
    plain = model.backbone.layer1[0].bn1(model.backbone.maxpool(model.backbone.conv1(image)))
    with batch_statistics(model):
        normalized = model.backbone.layer1[0].bn1(model.backbone.maxpool(model.backbone.conv1(image)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.backbone.layer1[0].bn1.training and model.backbone.bn1.training
    torch.testing.assert_close(normalized.mean((0, 2, 3)), torch.zeros(8), atol=1e-5, rtol=0)
    assert not torch.allclose(plain, normalized)
