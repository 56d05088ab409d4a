"""Levels of other orders, tokens, channels-last maps, and modules that give one tensor twice."""
import re
from types import SimpleNamespace

import pytest
import torch

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.objectives.pairs import match_features
from mmfeatdistill.taps.dry_run import probe
from mmfeatdistill.taps.layout import find_layout, to_map
from mmfeatdistill.taps.reader import TappedPass, TapReader
from tests.faults.conftest import said
from tests.helpers.models import (
    build,
    classification_batch,
    classifier,
    detection_batch,
    detector,
    distiller,
    losses_of,
    match,
    stock,
    teacher,
    transformer,
)


def yolox():
    model = stock('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py')
    model.data_preprocessor.pop('batch_augments', None)
    model.backbone.widen_factor = 0.125
    model.neck.update(in_channels=[32, 64, 128], out_channels=16, num_csp_blocks=1)
    model.bbox_head.update(in_channels=16, feat_channels=16, num_classes=10)
    return model


def yolov3():
    model = stock('mmdet::yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py')
    model.backbone.init_cfg = None
    return model


def swin():
    model = detector()
    model.backbone = dict(type='SwinTransformer', embed_dims=12, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
    model.neck.in_channels = [12, 24, 48, 96]
    return model


def paired(model):
    """Strides of the student's and the teacher's features, in the order of the losses."""
    return [(pair.student.layout.stride, pair.teacher.layout.stride) for pair in model.objectives['a'].pairs]


def test_levels_in_another_order_are_matched_by_stride():
    model = distiller(yolox(), teacher(yolov3()), dict(a=match('neck')))
    assert paired(model) == [(8, 8), (16, 16), (32, 32)]
    losses = losses_of(model, detection_batch())
    assert [losses[f'a.loss_{i}'].isfinite() for i in range(3)]


def test_levels_that_one_side_lacks_are_left_out():
    assert paired(distiller(yolox(), teacher(detector()), dict(a=match('neck')))) == [(8, 8), (16, 16), (32, 32)]


def test_queries_of_two_networks_are_said_to_have_no_common_order(log):
    """Each network finds other objects with its first query; the tokens of an encoder are positions."""
    model = stock('mmdet::detr/detr_r50_8xb2-150e_coco.py')
    model.backbone.update(depth=18, base_channels=8, stem_channels=8, init_cfg=None)
    model.neck.in_channels = [64]
    for part in (model.encoder, model.decoder):
        part.num_layers = 1
    distiller(model, teacher(model), dict(a=match('encoder')))
    assert not said(log, 'queries of a DETR')
    distiller(model, teacher(model), dict(a=match('decoder.layers.0')))
    assert said(log, 'model.objectives.a: decoder.layers.0[0] and decoder.layers.0[0] are 100 vectors for an image of '
                        'any size, as the queries of a DETR are', "'TargetAware'")


def retinanet(**neck):
    model = stock('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    model.backbone.update(depth=18, base_channels=8, stem_channels=8, init_cfg=None)
    model.neck = dict(dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=16, start_level=1, num_outs=5,
                           add_extra_convs='on_input'), **neck)
    model.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=1, num_classes=10)
    return model


def test_levels_that_a_small_image_shows_as_one_position_are_matched_too():
    """Of 64 pixels, a level of stride 128 has one position, whatever the height."""
    larger = retinanet(start_level=0, num_outs=6)
    assert paired(distiller(retinanet(), teacher(larger), dict(a=match('neck')))) == [
        (stride, stride) for stride in (8, 16, 32, 64, 128)]


def test_levels_that_are_pooled_are_matched_with_those_of_convolutions():
    """NAS-FPN takes no 64 pixels, and of 224 its outer levels have 3 and 1 rows, where convolutions give 4 and 2."""
    pooled = retinanet(type='NASFPN', stack_times=1, norm_cfg=dict(type='BN'))
    del pooled.neck['add_extra_convs']
    assert paired(distiller(retinanet(), teacher(pooled), dict(a=match('neck')))) == [
        (stride, stride) for stride in (8, 16, 32, 64, 128)]


def test_features_of_one_stride_too_many_are_refused_with_two_that_belong_together():
    """MobileNetV2 gives two features of stride 16 and two of 32; followed to the letter, the advice must be right."""
    resnet, mobile = classifier(), classifier()
    resnet.backbone.out_indices = (0, 1, 2, 3)
    mobile.backbone = dict(type='MobileNetV2', widen_factor=0.5, out_indices=tuple(range(7)))
    mobile['head'].in_channels = 160
    with pytest.raises(ConfigError) as refused:
        distiller(resnet, teacher(mobile), dict(a=match('backbone')))
    advice = re.search(r"as in dict\(student='(.*)', teacher='(.*)'\)\.", str(refused.value))
    named = dict(student=advice[1], teacher=advice[2])
    assert paired(distiller(resnet, teacher(mobile), dict(a=match(named)))) == [(16, 16)]


def test_levels_without_a_common_stride_are_refused_with_both_lists():
    with pytest.raises(ConfigError, match=r"a\.taps: the student's 'neck' gives features of stride 8, 16, 32, the "
                                          r"teacher's 'neck\[0\]' of stride 4, and none agree"):
        distiller(yolox(), teacher(detector()), dict(a=match(dict(student='neck', teacher='neck[0]'))))


def test_an_explicit_pair_of_other_strides_is_allowed():
    model = distiller(yolox(), teacher(detector()), dict(a=match(dict(student='neck[0]', teacher='neck[0]'))))
    assert paired(model) == [(8, 4)]
    assert losses_of(model, detection_batch())['a.loss_0'].isfinite()


def test_items_that_are_named_are_matched_as_written():
    model = distiller(yolox(), teacher(detector()), dict(a=match(dict(student='neck[0:2]', teacher='neck[3:5]'))))
    assert paired(model) == [(8, 32), (16, 64)]


def test_outputs_of_heads_are_matched_by_stride_and_kind():
    """Three kinds of output at three levels, which the teacher gives from the last level to the first."""
    network = build(yolox())
    student, _ = probe(network, TapReader(network, ['bbox_head'], 'student'))
    layouts = student.layouts('bbox_head')
    assert [layout.stride for layout in layouts] == [8, 16, 32] * 3
    turned = SimpleNamespace(layouts={'bbox_head': [*layouts[2::-1], *layouts[5:2:-1], *layouts[8:5:-1]]},
                             taps=student.reader.taps, calls=student.reader.calls)
    features = student['bbox_head']
    other = TappedPass({'bbox_head': [*features[2::-1], *features[5:2:-1], *features[8:5:-1]]}, turned, student.inputs)
    [pair_of_taps] = distiller(yolox(), teacher(yolox()), dict(a=match('bbox_head'))).objectives['a'].taps
    pairs = match_features([pair_of_taps], student, [other], 'key')
    assert all(torch.equal(*pair.of(student, [other])) for pair in pairs) and len(pairs) == 9


# --- layouts -------------------------------------------------------------------------------------


@pytest.mark.parametrize('tap, strides', [
    ('backbone.stages.0', [8, 4]), ('backbone.stages.1', [16, 8]), ('backbone.stages.3', [32]),
    ('backbone', [4, 8, 16, 32])])
def test_each_tensor_of_a_stage_of_swin_has_its_stride(tap, strides):
    """A stage returns what follows its downsampling and what went into it; the last returns one tensor twice."""
    network = build(swin())
    tapped, _ = probe(network, TapReader(network, [tap], 'student'))
    assert [layout.stride for layout in tapped.layouts(tap)] == strides
    assert [tuple(tensor.shape[2:]) for tensor in tapped[tap]] == [(64 // stride, 64 // stride) for stride in strides]


def test_a_tensor_that_is_returned_twice_has_one_loss():
    model = distiller(swin(), teacher(swin()), dict(a=match('backbone.stages.3')))
    assert len(model.objectives['a'].pairs) == 1
    losses = losses_of(model, detection_batch())
    assert [name for name in losses if name.startswith('a.')] == ['a.loss_0']


def test_tokens_are_laid_over_images_of_any_shape():
    """A bright patch is where it is in the image, whatever the class token and the ratio of the sides."""
    model = distiller(transformer(), teacher(classifier()),
                      dict(a=match(dict(student='backbone.layers.1', teacher='backbone.layer3'))))
    [pair] = model.objectives['a'].pairs
    assert pair.student.layout.kind == 'tokens' and pair.student.layout.extra_tokens == 1
    network = model.student.eval()
    images = torch.zeros(1, 3, 64, 96)
    images[:, :, 16:32, 64:80] = 9.0
    with torch.no_grad():
        features, _ = model.reader.read(lambda: network.extract_feat(images), size=(64, 96))
        plain, _ = model.reader.read(lambda: network.extract_feat(torch.zeros_like(images)), size=(64, 96))
    change = (features['backbone.layers.1'][0] - plain['backbone.layers.1'][0]).abs().sum(1)[0]
    assert change.shape == (4, 6) and divmod(int(change.argmax()), 6) == (1, 4)


def test_a_connector_that_looks_at_neighbors_has_the_grid_of_tokens():
    model = distiller(transformer(), teacher(classifier()), dict(
        a=dict(match(dict(student='backbone.layers.1', teacher='backbone.layer3')),
               connector=dict(type='MaskedGenerator', mask_ratio=0.5))))
    own, _ = model.objectives['a'].pairs[0].of(*_dry_run(model))
    assert own.dim() == 4 and own.shape[2:] == (4, 4)


def _dry_run(model):
    student, _ = probe(model.student, TapReader(model.student, ['backbone.layers.1'], 'student'))
    teacher_run, _ = probe(model.teachers[0].model, TapReader(model.teachers[0].model, ['backbone.layer3'], 'teacher'))
    return student, [teacher_run]


def test_channels_last_maps_of_timm_are_maps():
    pytest.importorskip('timm')
    model = classifier()
    model.backbone = dict(type='TIMMBackbone', model_name='swin_tiny_patch4_window7_224', features_only=True,
                          pretrained=False)
    model['head'].in_channels = 768
    network = build(model)
    tapped, _ = probe(network, TapReader(network, ['backbone[3]'], 'student'))
    [feature] = tapped['backbone[3]']
    assert feature.shape == (1, 768, 7, 7) and tapped.layouts('backbone[3]')[0].stride == 32


# --- modules that run several times ----------------------------------------------------------------


def test_a_module_that_all_levels_share_is_said_to_run_several_times(log):
    model = stock('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py')
    model.data_preprocessor.pop('batch_augments', None)
    model.backbone.update(widen_factor=0.125, init_cfg=None)
    model.neck.update(in_channels=[32, 64, 128], out_channels=16, num_csp_blocks=1)
    model.bbox_head.update(in_channels=16, feat_channels=16, num_classes=10)
    shared = 'bbox_head.cls_convs.0.0.conv'
    built = distiller(model, teacher(model), dict(a=match(shared)))
    assert said(log, f"the student's {shared!r} runs 3 times in a pass, and its last call is read")
    assert paired(built) == [(32, 32)]
    every = distiller(model, teacher(model), dict(a=match(f'{shared}:each')))
    assert paired(every) == [(8, 8), (16, 16), (32, 32)]


# --- grids that are found by two images ---------------------------------------------------------------


@pytest.mark.parametrize('square, tall, side, layout', [
    ((1, 65, 32), (1, 129, 32), 128, ('tokens', 16, 1)),       # a class token
    ((1, 69, 32), (1, 133, 32), 128, ('tokens', 16, 5)),       # and registers
    ((1, 26, 8), (1, 51, 8), 64, ('tokens', 14, 1)),           # patches of 14 pixels, padded
    ((1, 17, 8), (1, 37, 8), 64, ('tokens', 14, 1)),           # and not padded
    ((1, 35, 8), (1, 51, 8), 64, ('plain', None, 0)),          # class tokens of a segmenter, at the end
    ((1, 300, 256), (1, 300, 256), 64, ('plain', None, 0)),    # queries
    ((6, 1, 300, 256), (6, 2, 300, 256), 64, ('plain', None, 0)),  # of all layers
    ((1, 85, 256), (1, 169, 256), 64, ('plain', None, 0)),     # several levels in a row
    ((1, 64, 16), (1, 64, 32), 64, ('tokens_last', 16, 0)),
    ((1, 8, 4, 4), (1, 8, 8, 4), 64, ('map', 16, 0)), ((1, 4, 4, 8), (1, 8, 4, 8), 64, ('channels_last', 16, 0)),
    ((1, 4, 4, 8), (1, 4, 4, 8), 64, ('map', None, 0))])       # pooled to one size
def test_the_layout_that_two_images_show(square, tall, side, layout):
    assert find_layout(torch.zeros(square), torch.zeros(tall), side) == layout


@pytest.mark.parametrize('square, layout', [
    ((1, 197, 192), ('tokens', 16, 1)), ((1, 64, 16), ('plain', None, 0)), ((1, 7, 7, 768), ('channels_last', 32, 0))])
def test_one_image_shows_it_where_nothing_else_fits(square, layout):
    """Of an MLP-Mixer's (N, C, L) both could be positions."""
    side = 64 if square[1] == 64 else 224
    assert find_layout(torch.zeros(square), None, side) == layout


@pytest.mark.parametrize('size, grid', [((224, 224), (16, 16)), ((140, 70), (10, 5)), ((224, 322), (16, 23))])
def test_patches_of_fourteen_pixels_are_laid_over_any_image(size, grid):
    layout = find_layout(torch.zeros(1, 26, 8), torch.zeros(1, 51, 8), 64)
    assert to_map(torch.zeros(2, grid[0] * grid[1] + 1, 8), layout, size).shape == (2, 8, *grid)


@pytest.mark.parametrize('taps, twice', [
    (['backbone', 'backbone.layer4'], True), (['backbone.layer4.1', 'backbone.layer4'], True),
    (['backbone.layer3', 'backbone.layer4'], False), (['backbone.layer4', 'backbone.layer4.1.conv2'], False)])
def test_two_names_of_one_tensor_are_said(taps, twice, log):
    """The dry run goes on with copies of what it reads, so the two are not one object there."""
    distiller(classifier(), teacher(classifier(16)), dict(a=match() | dict(taps=taps)))
    assert said(log, 'model.objectives.a', 'is the same tensor as', 'counts twice') == twice


def beit(width, patch):
    """A transformer that computes its attention in the open."""
    arch = dict(embed_dims=width, num_layers=2, num_heads=3, feedforward_channels=32)
    model = classifier()
    model.backbone = dict(type='BEiTViT', arch=arch, img_size=64, patch_size=patch, out_type='avg_featmap',
                          use_abs_pos_emb=True)
    model['head'].in_channels, model.neck = width, None
    return model


def test_attention_of_tokens_to_tokens_is_no_map_that_could_be_resized():
    tap = 'backbone.layers.1.attn.attn_drop'
    model = distiller(beit(24, 16), teacher(beit(36, 16)), dict(a=match(tap)))
    assert losses_of(model, classification_batch())['a.loss_0'].isfinite(), 'of as many tokens it is compared'
    with pytest.raises(ConfigError, match='student has 289 and the teacher 4225 positions'):
        distiller(beit(24, 16), teacher(beit(36, 8)), dict(a=match(tap)))


def test_levels_of_an_encoder_one_after_the_other_are_no_grid():
    """16 and 4 positions of strides 16 and 32, and 32 and 8, as 4 and 4 x 4, and 4 and 9 x 4 patches of 14 pixels."""
    assert find_layout(torch.zeros(1, 20, 8), torch.zeros(1, 40, 8), side=64).kind == 'plain'


def test_what_grows_with_the_image_along_both_sides_is_no_map():
    assert find_layout(torch.zeros(1, 3, 17, 17), torch.zeros(1, 3, 33, 33), side=64).kind == 'plain'
    assert find_layout(torch.rand(1, 3, 16, 16).softmax(-1), None, side=64).kind == 'plain', 'one size only'
    assert find_layout(torch.rand(1, 3, 16, 16), None, side=64).kind == 'map'
    assert find_layout(torch.zeros(1, 3, 1, 1), torch.zeros(1, 3, 1, 1), side=64).kind == 'map', 'pooled'


@pytest.mark.parametrize('classes, kind', [(5, 'plain'), (1, 'plain')])
def test_tokens_of_classes_at_the_end_are_not_taken_for_the_first_positions(classes, kind):
    cfg = stock('mmseg::segmenter/segmenter_vit-t_mask_8xb1-160k_ade20k-512x512.py')
    cfg.pretrained = None
    cfg.backbone.update(img_size=(64, 64), num_layers=1, out_indices=0, embed_dims=24)
    cfg.decode_head.update(in_channels=24, channels=24, embed_dims=24, num_classes=classes)
    model = build(cfg)
    reader = TapReader(model, ['decode_head.layers.1', 'backbone.layers.0'], owner='student')
    probe(model, reader)
    [head], [backbone] = reader.layouts.values()
    assert head.kind == kind
    assert backbone == ('tokens', 16, 1), 'a class token that comes first stays known'


def test_calls_that_only_a_larger_image_reaches_are_read_too():
    """GroupNorm of one channel each refuses a level of one position, so of 64 pixels three of five levels run."""
    model = stock('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py')
    model.backbone.update(depth=18, base_channels=8, stem_channels=8, init_cfg=None, style='pytorch')
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=32)
    model.bbox_head.update(in_channels=32, feat_channels=32, stacked_convs=1, num_classes=10)
    model = distiller(model, teacher(model), dict(a=match('bbox_head.conv_cls:each')))
    assert len(model.objectives['a'].pairs) == 5
    assert model.reader.calls['bbox_head.conv_cls:each'] == 5


@pytest.mark.parametrize('rows, tall, side, stride', [
    (4, 7, 224, 64), (2, 4, 224, 128), (28, 56, 224, 8), (16, 32, 224, 14), (3, 7, 224, 64), (1, 3, 224, 128)])
def test_strides_of_rounded_levels_are_those_of_the_network(rows, tall, side, stride):
    """So a network that takes 224 pixels only has the levels of one that takes 64."""
    assert find_layout(torch.zeros(1, 2, rows, rows), torch.zeros(1, 2, tall, rows), side).stride == stride


def test_vectors_whose_length_follows_from_the_size_of_the_image_have_no_connector():
    """Of mmdet's ReID, a pooling whose kernel has the size of its training images leaves more on others."""
    model = classifier()
    model.neck = dict(type='mmdet.GlobalAveragePooling', kernel_size=2, stride=1)
    with pytest.raises(ConfigError, match=r"a\.taps: the student's 'neck' gives vectors whose length follows from the "
                                          r"size of the image, \d+ for .* such as 'backbone'"):
        distiller(model, teacher(classifier()), dict(a=match('neck')))
