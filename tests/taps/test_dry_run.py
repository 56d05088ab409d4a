import copy
import dataclasses
import random

import numpy as np
import pytest
import torch
from torch import nn

from mmfeatdistill.taps.dry_run import image_channels, probe, probe_all, run_entry, same_size
from mmfeatdistill.taps.reader import TapReader
from tests.helpers.models import build, classifier, convnext, count_calls, detector, segmenter, stock, transformer


def shapes(features):
    features = features if isinstance(features, dict) else features.features
    return {tap: [tuple(tensor.shape) for tensor in tensors] for tap, tensors in features.items()}


def probed(model, *taps):
    return probe(model, TapReader(model, taps, 'student'))


@pytest.mark.parametrize('make, expected', [
    (detector, dict(neck=[(1, 16, 16, 16), (1, 16, 8, 8), (1, 16, 4, 4), (1, 16, 2, 2), (1, 16, 1, 1)])),
    (classifier, dict(backbone=[(1, 64, 2, 2)], neck=[(1, 64)])),
    (segmenter, {'backbone.layer4': [(1, 64, 8, 8)]}),
    (transformer, {'backbone.layers.0': [(1, 16, 4, 4)], 'backbone': [(1, 16)]}),
    (convnext, {'backbone': [(1, 32)]})])
def test_shapes_of_one_image(make, expected):
    features, entry = probed(build(make()), *expected)
    assert shapes(features) == expected and entry == 'extract_feat'


def test_the_shortest_entry_that_reaches_the_taps():
    model = build(detector())
    rpn, roi = count_calls(model.rpn_head), count_calls(model.roi_head.bbox_head)
    assert probed(model, 'neck')[1] == 'extract_feat' and not rpn
    features, entry = probed(model, 'neck[0]', 'rpn_head.rpn_conv')
    assert entry == 'tensor' and shapes(features)['rpn_head.rpn_conv'] == [(1, 16, 1, 1)]
    assert probed(build(segmenter()), 'decode_head')[1] == 'tensor'
    assert len(rpn) == 1 and len(roi) == 1


@pytest.mark.parametrize('side', [224, 512])
def test_models_of_a_fixed_size_get_a_larger_image(side):
    cfg = transformer()
    cfg.backbone.update(img_size=side, interpolate_mode='bicubic')
    model = build(cfg)
    original = model.backbone.forward

    def fixed(x):
        assert x.shape[-1] == side, f'only {side}'
        return original(x)

    model.backbone.forward = fixed
    features, entry = probed(model, 'backbone.layers.1')
    assert shapes(features) == {'backbone.layers.1': [(1, 16, side // 16, side // 16)]} and entry == 'extract_feat'


@pytest.mark.parametrize('order', [1, -1])
def test_dry_runs_are_brought_to_one_size(order):
    """A network that fails on a small image has a larger one than its partner, and maps of one stride other sizes."""
    small, large = build(classifier()), build(classifier())
    original = large.backbone.forward

    def refuses_small(x):
        assert x.shape[-1] >= 200, 'too small for a deformable convolution'
        return original(x)

    large.backbone.forward = refuses_small
    found = [probe(model, TapReader(model, ['backbone'], 'network'))[0] for model in (small, large)][::order]
    assert [tapped.inputs.shape[-1] for tapped in found] == [64, 224][::order]
    scaled = dataclasses.replace(found[0], scale=0.5)
    assert [tapped.inputs.shape[-1] for tapped in same_size([scaled, found[1]])] == [64, 224][::order]
    assert {tuple(tapped['backbone'][0].shape[2:]) for tapped in same_size(found)} == {(7, 7)}


def test_a_network_that_takes_one_size_alone_keeps_what_was_learned_of_it():
    models = {side: build(classifier()) for side in (64, 224)}
    for side, model in models.items():
        def takes_one_size(x, original=model.backbone.forward, side=side):
            assert x.shape[-1] == side, f'only {side}'
            return original(x)

        model.backbone.forward = takes_one_size
    found = same_size([probe(model, TapReader(model, ['backbone'], 'network'))[0] for model in models.values()])
    assert [tapped.inputs.shape[-1] for tapped in found] == [64, 224]
    assert all(tapped.reader.layouts['backbone'][0].stride == 32 for tapped in found)


def test_a_network_that_names_the_size_of_its_images_sees_one_of_it():
    cfg = segmenter()
    cfg.backbone = dict(type='BEiT', img_size=(96, 96), patch_size=16, embed_dims=16, num_layers=2, num_heads=2,
                        out_indices=(0, 1), qv_bias=False, init_values=0.1)
    cfg.decode_head.update(in_channels=16, in_index=1)
    tapped, _ = probed(build(cfg), 'backbone')
    assert tuple(tapped.inputs.shape) == (1, 3, 96, 96)
    assert shapes(tapped) == dict(backbone=[(1, 16, 6, 6)] * 2)


def test_a_stem_that_stacks_neighboring_pixels():
    model = build(stock('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'))
    assert model.backbone.stem.conv.conv.in_channels == 12 and image_channels(model) == 3
    features, entry = probed(model, 'neck')
    assert shapes(features) == {'neck': [(1, 96, 8, 8), (1, 96, 4, 4), (1, 96, 2, 2)]} and entry == 'extract_feat'


def test_channels_where_the_model_fails_before_its_first_convolution_or_has_none():
    class Failing(nn.Conv2d):
        def forward(self, inputs):
            raise RuntimeError

    assert image_channels(nn.Sequential(Failing(3, 3, 1), nn.Conv2d(6, 8, 3))) == 3
    assert image_channels(nn.Sequential(Failing(6, 6, 1), nn.Conv2d(6, 8, 3))) == 6
    assert image_channels(nn.Linear(2, 2)) is None


def test_other_numbers_of_channels_and_types():
    class Gray(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)

        def forward(self, inputs, data_samples=None, mode='tensor'):
            return self.conv(inputs)

    features, entry = probed(Gray().double(), 'conv')
    assert shapes(features) == {'conv': [(1, 4, 62, 62)]} and entry == 'tensor'
    assert features['conv'][0].dtype == torch.float64


def test_what_runs_only_in_the_loss_or_in_prediction():
    model = build(detector())
    with pytest.raises(ValueError) as error:
        probed(model, 'rpn_head.loss_cls')
    for word in ("student: 'rpn_head.loss_cls' exists but did not run in this pass", "'extract_feat'",
                 'tools/list_taps.py'):
        assert word in str(error.value), error.value


def test_where_a_larger_image_helps_no_failure_of_an_even_larger_one_is_reported():
    """VGG calls the layers of its ``features`` one by one, and its last ones take images of 224 pixels only."""
    model = build(stock('mmpretrain::_base_/models/vgg11.py'))
    with pytest.raises(ValueError, match=r"'backbone.features' exists but did not run in this pass\. Only"):
        probed(model, 'backbone.features')
    assert shapes(probed(model, 'backbone')[0]) == {'backbone': [(1, 1000)]}
    found, failure = probe_all(model, 256)
    assert 'backbone.features.0.conv' in found and 'backbone' not in found and isinstance(failure, RuntimeError)


def test_the_reason_of_a_failing_model_is_given():
    cfg = detector()
    cfg.neck.in_channels = [8, 16, 32, 63]
    with pytest.raises(ValueError, match=r"'neck' exists but did not run in this pass \(RuntimeError: .*channels"):
        probed(build(cfg), 'neck')


def test_a_forward_that_reads_labels_is_said_to():
    """As those of mmdet's Sparse R-CNN, QueryInst and YOLACT."""
    model = build(detector())
    forward = model.roi_head.forward
    model.roi_head.forward = lambda x, results, samples: [sample.gt_instances for sample in samples] and forward(
        x, results, samples)
    with pytest.raises(ValueError, match=r"'roi_head.bbox_head' exists but did not run in this pass \(the pass ended "
                                         r"before it, as the network reads the labels of its images, 'gt_instances'"):
        probed(model, 'roi_head.bbox_head')


def test_the_reason_of_a_failing_head_is_given():
    """As mmseg's Mask2Former, whose head needs data samples, which mmseg does not hand on to it."""
    model = build(segmenter())
    forward = model.decode_head.forward
    model.decode_head.forward = lambda inputs, batch_data_samples: forward(inputs)
    with pytest.raises(ValueError, match=r"'decode_head.conv_seg' exists but did not run in this pass \(TypeError: "
                                         r".*'batch_data_samples'\)\. Only"):
        probed(model, 'decode_head.conv_seg')


@pytest.mark.parametrize('make', [detector, classifier, convnext])
@pytest.mark.parametrize('everything', [False, True])
def test_the_model_is_left_as_it_was(make, everything):
    model = build(make()).train()
    list(model.backbone.children())[-1].eval()  # mixed, as frozen stages are
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    if everything:
        probe_all(model, 64)
    else:
        probed(model, 'backbone')
    assert [m.training for m in model.modules()] == modes
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1] and (np.random.get_state()[1] == states[2]).all()
    assert torch.is_grad_enabled()


def test_a_model_that_draws_random_numbers_always():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, inputs, data_samples=None, mode='tensor'):
            return self.conv(inputs + torch.rand_like(inputs))

    model = Noisy()
    state = torch.get_rng_state()
    probed(model, 'conv')
    assert torch.equal(torch.get_rng_state(), state)


def test_all_places_and_how_often_they_run():
    model = build(detector())
    found, failure = probe_all(model, 64)
    assert failure is None
    assert {'backbone', 'backbone.layer1.0.bn2', 'neck', 'neck.fpn_convs.0.conv', 'rpn_head'} <= set(found)
    assert found['backbone.layer1.0.relu'][1] == 2, 'calls'
    assert found['rpn_head.rpn_conv'][1] == 5, 'once per level'
    assert shapes({'backbone': found['backbone'][0]}) == {
        'backbone': [(1, 8, 16, 16), (1, 16, 8, 8), (1, 32, 4, 4), (1, 64, 2, 2)]}
    assert list(found).index('backbone.conv1') < list(found).index('backbone') < list(found).index('neck')
    for tap, (tensors, _) in list(found.items())[::10]:
        assert shapes(probed(model, tap)[0])[tap] == [tuple(t.shape) for t in tensors]


def test_entries():
    model = build(classifier()).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(run_entry(model, 'extract_feat', image, None), model.extract_feat(image))
        torch.testing.assert_close(run_entry(model, 'tensor', image, None), model(image, mode='tensor'))
