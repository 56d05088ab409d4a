"""The twin: a network that is its own teacher has zero loss at every accepted tap, for heads of every kind."""
import pytest
import torch
from torch import nn

from mmfeatdistill.checks import twin
from mmfeatdistill.checks.twin import TOLERANCE, check_twin
from mmfeatdistill.taps.dry_run import probe_all
from mmfeatdistill.taps.isolation import training_isolated
from tests.helpers.models import (
    build,
    classification_batch,
    classifier,
    convnext,
    detector,
    distiller,
    losses_of,
    match,
    segmenter,
    stock,
    teacher,
    transformer,
)

DETECTORS = {
    'atss/atss_r50_fpn_1x_coco.py': 64, 'autoassign/autoassign_r50-caffe_fpn_1x_coco.py': 64,
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py': 64, 'centernet/centernet_r18_8xb16-crop512-140e_coco.py': 64,
    'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py': 64, 'ddod/ddod_r50_fpn_1x_coco.py': 64,
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py': 128, 'detr/detr_r50_8xb2-150e_coco.py': 64,
    'dino/dino-4scale_r50_8xb2-12e_coco.py': 224, 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py': 64,
    'fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py': 64,
    'foveabox/fovea_r50_fpn_4xb4-1x_coco.py': 64, 'fsaf/fsaf_r50_fpn_1x_coco.py': 64, 'gfl/gfl_r50_fpn_1x_coco.py': 64,
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py': 64, 'paa/paa_r50_fpn_1x_coco.py': 64,
    'retinanet/retinanet_r50_fpn_1x_coco.py': 64, 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py': 64,
    'solo/solo_r50_fpn_1x_coco.py': 64, 'tood/tood_r50_fpn_1x_coco.py': 64, 'vfnet/vfnet_r50_fpn_1x_coco.py': 64,
    'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py': 64, 'yolof/yolof_r50-c5_8xb8-1x_coco.py': 64,
    'yolox/yolox_tiny_8xb8-300e_coco.py': 64}
SEGMENTERS = [
    'ann/ann_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py',
    'bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024.py',
    'deeplabv3/deeplabv3_r18-d8_4xb2-80k_cityscapes-512x1024.py',
    'deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024.py',
    'fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py', 'ocrnet/ocrnet_hr18s_4xb2-40k_cityscapes-512x1024.py',
    'pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py', 'pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py',
    'segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py',
    'segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.py', 'upernet/upernet_r18_4xb2-40k_cityscapes-512x1024.py',
    'stdc/stdc1_4xb12-80k_cityscapes-512x1024.py']
CLASSIFIERS = [
    'convnext/convnext-tiny_32xb128_in1k.py', 'deit/deit-tiny_4xb256_in1k.py', 'densenet/densenet121_4xb256_in1k.py',
    'efficientnet/efficientnet-b0_8xb32_in1k.py', 'mobilenet_v2/mobilenet-v2_8xb32_in1k.py',
    'mobilenet_v3/mobilenet-v3-small_8xb128_in1k.py', 'repvgg/repvgg-A0_8xb32_in1k.py', 'resnet/resnet18_8xb32_in1k.py',
    'shufflenet_v2/shufflenet-v2-1x_16xb64_in1k.py', 'swin_transformer/swin-tiny_16xb64_in1k.py',
    'vgg/vgg11bn_8xb32_in1k.py']


def places(network: nn.Module, side: int) -> list[str]:
    """Every place that list_taps shows and that gives something for each image."""
    found, _ = probe_all(network, side)
    return [name for name, (tensors, _) in found.items()
            if tensors and not name.startswith('data_preprocessor') and all(map(is_feature, tensors))]


def is_feature(tensor: torch.Tensor) -> bool:
    return tensor.shape[0] == 1 and tensor.dim() > 1 and tensor.is_floating_point()


def check(model, side: int) -> None:
    torch.manual_seed(0)
    network = build(model)
    network.init_weights()  # until then, some parameters are whatever was in memory
    taps = places(network, side)
    twins = check_twin(network, taps)
    assert len(twins) == len(taps) > 10, 'the network was run in training'
    assert not [twin for twin in twins if twin.is_error]
    # Of DINO all of the decoder is refused: it has more queries in training.
    assert sum(not twin.refused for twin in twins) > 0.6 * len(taps)


def unloaded(name: str):
    model = stock(name)
    model.pop('pretrained', None)
    model.get('backbone', {}).pop('init_cfg', None)
    return model


@pytest.mark.parametrize('make', [detector, segmenter, classifier, transformer, convnext])
def test_small_models(make):
    check(make(), 64)


@pytest.mark.slow
@pytest.mark.parametrize('name', DETECTORS)
def test_detectors(name):
    check(unloaded(f'mmdet::{name}'), DETECTORS[name])


@pytest.mark.slow
@pytest.mark.parametrize('name', SEGMENTERS)
def test_segmenters(name):
    check(unloaded(f'mmseg::{name}'), 64)


@pytest.mark.slow
@pytest.mark.parametrize('name', CLASSIFIERS)
def test_classifiers(name):
    model = unloaded(f'mmpretrain::{name}')
    model.pop('train_cfg', None)  # Mixup and the like are part of the data preprocessor
    check(model, 224 if 'deit' in name or 'swin' in name else 64)


class Shifted(nn.Module):
    """Puts the channels of a feature in another order, or its levels, in training only."""

    def __init__(self, module: nn.Module, change) -> None:
        super().__init__()
        self.module, self.change = module, change

    def forward(self, *args):
        given = self.module(*args)
        return self.change(given) if self.training else given


@pytest.mark.parametrize('change', [
    lambda levels: tuple(level.roll(1, dims=1) for level in levels),
    lambda levels: tuple(level.flip(3) for level in levels),
    lambda levels: (*levels[:-1], 2 * levels[-1])], ids=['channels', 'mirrored', 'scaled'])
def test_a_feature_that_is_another_in_training_is_found(change):
    network = build(detector())
    network.neck = Shifted(network.neck, change)
    [found] = check_twin(network, ['neck'])
    assert found.refused == 'gives other values when the network trains than when it predicts, as a teacher does'


def test_levels_in_another_order_in_training_are_matched_all_the_same():
    network = build(detector())
    network.neck = Shifted(network.neck, lambda levels: (*levels[1:], levels[0]))
    [found] = check_twin(network, ['neck'])
    assert not found.refused and found.difference < TOLERANCE


@pytest.mark.parametrize('change, same', [({}, True), (dict(std=[1., 1., 1.]), False), (dict(to_rgb=False), False)])
def test_another_preprocessor_is_another_teacher(change, same):
    """Both networks have equal weights and see one batch of raw images, each in its own input space."""
    student, other = classifier(), classifier()
    other.data_preprocessor.update(change)
    model = distiller(student, teacher(other), dict(a=dict(match('backbone'), connector=dict(type='Identity'))))
    model.teachers[0].model.load_state_dict({name: value for name, value in model.student.state_dict().items()
                                             if not name.startswith('distiller')})
    with training_isolated(model.student):
        loss = losses_of(model, classification_batch())['a.loss_0']
    assert (loss < 1e-6) == same


def test_a_tap_that_is_not_compared_rightly_is_an_error(monkeypatch):
    """What compare_training misses, the twin finds: as if the second dry run had not been made."""
    monkeypatch.setattr(twin, 'compare_training', lambda tapped, taps: {})
    network = build(detector())
    network.neck = Shifted(network.neck, lambda levels: (*levels[:-1], 2 * levels[-1]))
    [found] = check_twin(network, ['neck'])
    assert found.is_error
