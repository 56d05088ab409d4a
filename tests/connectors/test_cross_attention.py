"""The cross attention of CanKD: against its authors' code, and what it promises as a connector."""
from pathlib import Path

import numpy as np
import pytest
import torch

from mmfeatdistill.checks.preflight import _tap_rows
from mmfeatdistill.connectors import CrossAttention
from mmfeatdistill.connectors.cross_attention import cross_attention
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.losses import InstanceNormError
from mmfeatdistill.taps.feature_map import FeatureShape
from tests.helpers.models import (
    BN,
    classifier,
    detection_batch,
    detector,
    distiller,
    losses_of,
    match,
    stock,
    teacher,
)

GOLDEN = np.load(Path(__file__).parents[1] / 'data' / 'golden' / 'cankd.npz')
OPTIONS = dict(full=dict(sub_sample=False), nobn=dict(batch_norm=False))
WEIGHTS = dict(even=1, init=1, full=1, nobn=1, odd=10, seg=10)
# Our names, and the authors' in a case with pooling and normalization.
LAYERS = {'query': 'att.theta', 'key': 'att.phi.0', 'value': 'g.0', 'restore.0': 'W.0', 'restore.1': 'W.1'}


def theirs(case: str, layer: str) -> str:
    """The authors' name of one of our layers."""
    name = LAYERS[layer]
    if case == 'full':
        name = name.replace('phi.0', 'phi').replace('g.0', 'g')
    return name.replace('W.0', 'W') if case == 'nobn' else name


def golden(case: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(f'{case}_'): torch.from_numpy(GOLDEN[name]) for name in GOLDEN.files
            if name.startswith(f'{case}_')}


def of_the_authors(case: str) -> tuple[CrossAttention, dict[str, torch.Tensor]]:
    """The connector with their weights, and their arrays."""
    g = golden(case)
    module = CrossAttention(*(FeatureShape(*g[side].shape[1:]) for side in ('student', 'teacher')),
                            **OPTIONS.get(case, {}))
    layers = dict(module.named_modules())
    with torch.no_grad():
        for layer in LAYERS:
            for part in ('weight', 'bias') if layer in layers else ():
                getattr(layers[layer], part).copy_(g[f'{theirs(case, layer)}.{part}'])
        if case == 'seg':
            module.align.weight.copy_(g['align.weight'])
            module.align.bias.copy_(g['align.bias'])
    return module, g


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize('case', WEIGHTS)
def test_values_gradients_and_statistics_of_the_authors(case):
    module, g = of_the_authors(case)
    loss, student = InstanceNormError(WEIGHTS[case]), g['student'].requires_grad_()
    connected = module(student, g['teacher'])
    close(connected, g['connected'])
    value = loss(connected, g['teacher'])
    value.backward()
    assert value.item() == pytest.approx(g['loss'].item(), rel=1e-6)
    close(student.grad, g['grad_student'])
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    checked = 0
    for layer in LAYERS:
        expected = g.get(f'grad_{theirs(case, layer)}.weight')
        if expected is not None:
            torch.testing.assert_close(gradients[f'{layer}.weight'], expected, rtol=0,
                                       atol=1e-5 * expected.abs().max().item() + 1e-12)
            checked += 1
    assert checked == 4
    if case != 'nobn':
        close(module.restore[1].running_mean, g['W.1.running_mean'])
        close(module.restore[1].running_var, g['W.1.running_var'])
    evaluated = loss(module.eval()(g['student'].detach(), g['teacher']), g['teacher'])
    assert evaluated.item() == pytest.approx(g['eval_loss'].item(), rel=1e-6)


@pytest.mark.parametrize('batch_norm', [True, False])
@pytest.mark.parametrize('shape', [(2, 8, 6, 8), (3, 8, 5, 7), (1, 8, 1, 9), (2, 8, 1, 1)])
def test_at_first_it_changes_nothing_and_every_layer_is_in_the_graph(shape, batch_norm):
    student, target = torch.randn(shape, requires_grad=True), torch.randn(shape, requires_grad=True)
    module = CrossAttention(FeatureShape(8, 4, 4), FeatureShape(8, 4, 4), batch_norm=batch_norm)
    connected = module(student, target)
    assert torch.equal(connected, student)
    connected.square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert module.restore[-1].weight.grad.any()
    assert target.grad is None


def test_it_is_attention_over_all_positions():
    query, key, value = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 2, 3), torch.randn(2, 6, 2, 3)
    weights = torch.einsum('ncp,ncm->npm', query.flatten(2), key.flatten(2)) / 6
    expected = torch.einsum('npm,ndm->ndp', weights, value.flatten(2)).view(2, 6, 4, 5)
    torch.testing.assert_close(cross_attention(query, key, value), expected, rtol=1e-5, atol=1e-6)


def test_nothing_of_positions_times_positions_exists():
    """And what the pooling starts from is not kept: 2.25 tensors of the feature's size are."""
    shape = FeatureShape(16, 32, 32)
    module, student = CrossAttention(shape, shape), torch.randn(1, *shape, requires_grad=True)
    kept: dict[int, int] = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    target = torch.randn(1, *shape)
    inputs = {tensor.untyped_storage().data_ptr() for tensor in (student, target, *module.parameters())}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        connected = module(student, target)
    size = student.numel() * student.element_size()
    assert connected.requires_grad
    assert sum(bytes_ for pointer, bytes_ in kept.items() if pointer not in inputs) < 2.4 * size
    assert max(kept.values()) <= size


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_sums_over_positions_are_taken_in_float32(dtype):
    """In half precision a thousand ones and a half add up to something else, or overflow."""
    key = torch.full((1, 1, 64, 64), 100.0).to(dtype)
    value = torch.full((1, 1, 64, 64), 1.5).to(dtype)
    query = torch.ones(1, 1, 2, 2, dtype=dtype)
    assert cross_attention(query, key, value).tolist() == torch.full((1, 1, 2, 2), 150.0).tolist()
    with torch.autocast('cpu', torch.bfloat16):
        mixed = cross_attention(query.float(), key.float(), value.float() + 2**-10)
    assert mixed.float().mean().item() == pytest.approx(150.1, rel=4e-3)


CANKD = dict(type='FeatureMatch', connector=dict(type='CrossAttention'), loss=dict(type='InstanceNormError'))


def test_a_detector_learns_from_another_through_it():
    model = distiller(detector(), teacher(detector(16, 32)), dict(fpn=dict(CANKD, taps=['neck[:4]'])))
    losses = losses_of(model, detection_batch((64, 96), (70, 64)))
    sum(value for name, value in losses.items() if name.startswith('fpn.')).backward()
    assert sorted(name for name in losses if name.startswith('fpn.')) == [f'fpn.loss_{level}' for level in range(4)]
    assert model.backbone.conv1.weight.grad.any()
    assert [row.connected for row in _tap_rows(model)][:2] == ['32x16x16', '32x8x8'], 'as check_teacher shows'
    assert not any(parameter.requires_grad for parameter in model.teachers[0].model.parameters())


def test_a_twin_has_nothing_to_learn_at_first():
    model = distiller(detector(), teacher(detector()), dict(fpn=dict(CANKD, taps=['neck[:4]'])))
    model.teachers[0].model.load_state_dict(
        {name: value for name, value in model.state_dict().items() if not name.startswith('distiller.')})
    model.eval()
    losses = losses_of(model, detection_batch())
    assert all(losses[f'fpn.loss_{level}'] < 1e-10 for level in range(4))


def test_levels_of_one_position_on_the_small_image_of_the_dry_run_are_tried_on_a_larger_one():
    """P6 and P7 of RetinaNet have one position of 64 pixels, and more of any image that is trained on."""
    network = stock('mmdet::_base_/models/retinanet_r50_fpn.py')
    network.backbone.update(depth=18, stem_channels=8, base_channels=8, init_cfg=None)
    network.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    network.bbox_head.update(in_channels=16, feat_channels=8, num_classes=10)
    model = distiller(network, teacher(network), dict(fpn=dict(CANKD, taps=['neck'])))
    assert len(model.objectives['fpn'].pairs) == 5
    losses = losses_of(model, detection_batch((256, 256)))
    assert all(losses[f'fpn.loss_{level}'].isfinite() for level in range(5))
    with pytest.raises(ConfigError, match=r'objectives.fpn: .*at least two positions, got \(1, 16, 1, 1\)'):
        losses_of(model, detection_batch((64, 64)))


def pyramid_pooling():
    network = stock('mmseg::_base_/models/pspnet_r50-d8.py')
    network.update(pretrained=None, auxiliary_head=None)
    network.data_preprocessor.size = (64, 64)
    network.backbone.update(depth=18, stem_channels=8, base_channels=8, norm_cfg=BN)
    network.decode_head.update(in_channels=64, channels=8, norm_cfg=BN)
    return network


@pytest.mark.parametrize('network, tap, words', [
    (classifier, 'neck', r'must have the shape \(N, C, H, ...\)'),
    (pyramid_pooling, 'decode_head.psp_modules.0', r'at least two positions, got \(1, 8, 1, 1\)')])
def test_what_has_one_position_is_refused_when_it_is_built(network, tap, words):
    """Vectors, and maps that stay so small however large the image is."""
    with pytest.raises(ConfigError, match=f'model.objectives.v.loss: .*{words}'):
        distiller(network(), teacher(network()), dict(v=dict(CANKD, taps=[tap])))


def test_another_connector_is_not_given_the_teacher():
    model = distiller(objectives=dict(fpn=match()))
    seen = []
    model.objectives['fpn'].connectors[0].register_forward_pre_hook(lambda _, args: seen.append(len(args)))
    losses_of(model, detection_batch())
    assert seen == [1]
