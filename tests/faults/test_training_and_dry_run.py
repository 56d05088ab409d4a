"""Networks that give something else in training than when they predict, as teachers do."""
import pytest
import torch
from mmdet.models.backbones.trident_resnet import TridentConv
from mmengine.registry import MODELS
from torch import nn

from mmfeatdistill.checks.twin import check_twin
from mmfeatdistill.distillers import preparing
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.taps.dry_run import image_channels
from mmfeatdistill.taps.dummy_batch import labeled_sample, library_of
from mmfeatdistill.taps.reader import TapReader
from mmfeatdistill.taps.training_run import _difference
from tests.faults.conftest import said
from tests.helpers.models import (
    build,
    classifier,
    detection_batch,
    detector,
    distiller,
    losses_of,
    match,
    segmentation_batch,
    stock,
    teacher,
)


def with_checkpointing():
    model = detector()
    model.backbone.with_cp = True
    return model


def revvit():
    model = stock('mmpretrain::revvit/revvit-small_8xb256_in1k.py')
    model.data_preprocessor = dict(type='ClsDataPreprocessor', mean=[0.] * 3, std=[255.] * 3)
    model.backbone.update(arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32), img_size=64)
    model['head'].update(num_classes=10, in_channels=32)
    model.train_cfg = None
    return model


def unloaded(model):
    """A stock model without what its config would load, and with plain BatchNorm."""
    model.pop('pretrained', None)
    model.backbone.pop('init_cfg', None)
    for part in ('backbone', 'decode_head', 'auxiliary_head'):
        for entry in model.get(part) if isinstance(model.get(part), list) else [model.get(part)]:
            if entry and entry.get('norm_cfg', {}).get('type') == 'SyncBN':
                entry.norm_cfg.type = 'BN'
    return model


def ddrnet():
    model = unloaded(stock('mmseg::ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py'))
    model.backbone.channels = 8
    model.decode_head.update(in_channels=32, channels=16)
    return model


def one_stage(name, **head):
    """A one-stage detector on a small ResNet-18."""
    model = unloaded(stock(name))
    model.backbone.update(depth=18, base_channels=8, stem_channels=8, frozen_stages=-1)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    model.bbox_head.update(in_channels=16, feat_channels=16, num_classes=10, stacked_convs=1, **head)
    return model


def fcos():
    return one_stage('mmdet::fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py',
                     norm_cfg=dict(type='GN', num_groups=4))


def vfnet():
    return one_stage('mmdet::vfnet/vfnet_r50_fpn_1x_coco.py', norm_cfg=dict(type='GN', num_groups=4))


def condinst():
    model = one_stage('mmdet::condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py')
    model.bbox_head.norm_cfg = dict(type='GN', num_groups=4)
    model.mask_head.mask_feature_head.update(in_channels=16, feat_channels=16, norm_cfg=dict(type='BN'))
    return model


def ocrnet():
    return unloaded(stock('mmseg::ocrnet/ocrnet_hr18s_4xb2-40k_cityscapes-512x1024.py'))


def segnext():
    model = unloaded(stock('mmseg::segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.py'))
    model.backbone.update(embed_dims=[8, 16, 32, 64], depths=[1, 1, 1, 1])
    model.decode_head.update(in_channels=[16, 32, 64], channels=32, ham_channels=32,
                             norm_cfg=dict(type='GN', num_groups=4), num_classes=19)
    return model


def twin(model, *taps, size=96):
    """What comes of some taps where a network is its own teacher."""
    network = build(model)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, image_channels(network), size, size, generator=generator)
    samples = [labeled_sample(library_of(network), size, size, generator) for _ in range(2)]
    return check_twin(network, taps, images, samples)


def built(model, *taps, **objective):
    """A distiller whose teacher is of the student's own kind."""
    options = match() | dict(connector=dict(type='Identity'), taps=list(taps)) | objective
    return distiller(model, teacher(model), dict(a=options))


@pytest.mark.parametrize('tap', ['backbone', 'backbone[0]', 'backbone[-1]', 'backbone.spp'])
def test_what_comes_with_an_auxiliary_output_in_training_is_the_same_tensor(tap):
    """DDRNet gives one tensor when it predicts, and an auxiliary one in front of it when it trains."""
    [found] = twin(ddrnet(), tap)
    assert not found.refused and found.difference < 1e-6


@pytest.mark.parametrize('model', [fcos, condinst])
def test_heads_that_compute_something_else_in_training_are_refused_with_advice_that_holds(model):
    with pytest.raises(ConfigError, match=r"^model\.objectives\.a\.taps: 'bbox_head' gives .* Tap '(?P<tap>[^']+)'") \
            as caught:
        built(model(), 'bbox_head')
    advised = str(caught.value).split("Tap '")[1].split("'")[0]
    [found] = twin(model(), advised)
    assert not found.refused and found.difference < 1e-6


def test_of_a_head_that_gives_more_in_training_the_same_are_read():
    """VFNet's head gives ten tensors when it predicts, and five more when it trains."""
    [found] = twin(vfnet(), 'bbox_head')
    assert not found.refused and found.difference < 1e-6
    model = built(vfnet(), 'bbox_head')
    assert len(model.objectives['a'].pairs) == 10


def test_each_call_of_a_head_that_a_teacher_runs_twice_is_refused():
    with pytest.raises(ConfigError, match=r"'bbox_head.conv_cls:each' gives 10 feature\(s\) .* and 5 when it trains"):
        built(condinst(), 'bbox_head.conv_cls:each')


def test_queries_that_are_added_for_denoising_are_refused():
    model = stock('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py')
    model.backbone.update(depth=18, base_channels=8, stem_channels=8, frozen_stages=-1, init_cfg=None)
    model.neck.in_channels = [16, 32, 64]
    model.encoder.num_layers, model.decoder.num_layers, model.num_queries = 1, 2, 40
    with pytest.raises(ConfigError, match=r"a\.taps: 'decoder.layers.1' gives \(40, 256\) .* queries .* denoising"):
        built(model, 'decoder.layers.1')


def test_a_module_that_runs_several_times_is_named(log):
    built(ocrnet(), 'decode_head.0.conv_seg')
    assert said(log, "the student's 'decode_head.0.conv_seg' runs 2 times in a pass, and its last call is read")


def test_a_teacher_that_draws_random_numbers_draws_them_aside(log):
    """SegNeXt's decomposition starts from random bases in every pass."""
    model = built(segnext(), 'decode_head.hamburger')
    assert said(log, 'model.teacher', 'draws random numbers')
    images = torch.randn(1, 3, 64, 64)
    state = torch.get_rng_state()
    first, second = (model.teachers[0](images, None)['decode_head.hamburger'][0] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state), 'the training draws as without a teacher'
    assert torch.equal(first, second), 'a resumed training draws the same'
    torch.rand(1)
    assert not torch.equal(model.teachers[0](images, None)['decode_head.hamburger'][0], first)


def test_the_training_pass_leaves_no_trace():
    torch.manual_seed(0)
    alone = build(detector())
    state = torch.get_rng_state()
    torch.manual_seed(0)
    model = distiller(build(detector()), teacher(detector(16, 32)), dict(fpn=match()))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training and all(module.training for module in model.student.modules())
    for name, value in alone.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_the_training_pass_enters_no_history():
    """Dynamic R-CNN draws thresholds of its assigner from what it saw; made-up labels would be among it."""
    model = detector()
    model.roi_head.type = 'DynamicRoIHead'
    model.roi_head.bbox_head.loss_bbox = dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0)
    model.train_cfg.rcnn.dynamic_rcnn = dict(iou_topk=7, beta_topk=2, update_iter_interval=1, initial_iou=0.3,
                                             initial_beta=1.0)
    student = distiller(model).student
    head = student.roi_head
    assert not (head.iou_history or head.beta_history or student.rpn_head._raw_positive_infos)
    assert (head.bbox_assigner.pos_iou_thr, head.bbox_head.loss_bbox.beta) == (0.5, 1.0)


def test_items_of_a_place_that_gives_more_in_training_are_not_taken_blindly(monkeypatch):
    """Where no training pass could be made, the first of one tensor and the first of two are told apart in step 1."""
    monkeypatch.setattr(preparing, 'check_training', lambda tapped, taps, passes: None)
    model = built(ddrnet(), 'backbone[0]', connector=dict(type='Conv1x1'))
    with pytest.raises(RuntimeError, match=r"'backbone' gave 1 feature\(s\) in the dry run and gives 2 now"):
        losses_of(model, segmentation_batch())


@pytest.mark.parametrize('model, tap, reason, advised', [
    (with_checkpointing, 'backbone.layer3.1.conv2', "'backbone.layer3.1' has with_cp=True", 'backbone.layer3.1'),
    (revvit, 'backbone.layers.0', r'a block around it keeps no activations .*reversible', 'backbone')])
def test_blocks_that_run_again_in_the_backward_pass_are_known_when_a_distiller_is_built(model, tap, reason, advised):
    with pytest.raises(ConfigError, match=rf"^model\.objectives\.a\.taps: '{tap}' runs without gradient in training, "
                                          rf"as {reason}.* Tap '{advised}'"):
        built(model(), tap)
    [found] = twin(model(), advised, size=64)
    assert not found.refused and found.difference < 1e-6


def test_a_student_that_is_frozen_up_to_its_taps_is_known_when_a_distiller_is_built():
    model = detector()
    model.backbone.frozen_stages = 2
    with pytest.raises(ConfigError, match=r"a\.taps: no gradient .*'backbone.layer1', 'backbone.layer2', as"):
        built(model, 'backbone.layer1', 'backbone.layer2')
    built(model, 'backbone.layer2', 'backbone.layer3')


def test_a_head_that_predicts_for_single_images_only_is_refused():
    """Guided anchoring masks its convolutions when it predicts, which mmcv does for one image."""
    model = one_stage('mmdet::guided_anchoring/ga-retinanet_r50_fpn_1x_coco.py')
    with pytest.raises(ConfigError, match=r"a\.taps: .* batch of two images as far as 'bbox_head' .* such as 'neck'"):
        built(model, 'bbox_head')
    losses_of(built(model, 'neck'), detection_batch())


def test_a_training_pass_that_was_cut_short_unlearns_no_calls():
    """A loss may fail on made-up labels before a module's last call."""
    model = torch.nn.ModuleList([torch.nn.Conv2d(3, 3, 1)])
    reader, image = TapReader(model, ['0'], 'student'), torch.ones(1, 3, 4, 4)
    reader.probe(lambda: model[0](model[0](image)))

    def fail():
        model[0](image)
        raise RuntimeError

    reader.probe_places(fail)
    assert reader.calls == {'0': 2} and isinstance(reader.failure, RuntimeError)


@pytest.mark.parametrize('after, are_queries', [((2, 240, 16), True), ((2, 40, 32), False), ((2, 8, 4, 4), False)])
def test_only_more_rows_of_one_width_are_called_queries(after, are_queries):
    message = _difference([torch.zeros(1, 40, 16)], [torch.zeros(after)])
    assert ('queries' in message) == are_queries and 'when it trains' in message


@MODELS.register_module()
class Branches(nn.Module):
    """The convolution of mmdet's TridentNet, one layer of three branches in training and of one afterwards."""

    def __init__(self, memory):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 4, 1)
        self.trident = TridentConv(8, 8, 3, trident_dilations=(1, 2, 3), test_branch_idx=1)
        nn.init.constant_(self.trident.weight, memory)  # until it is initialized, it holds whatever was in memory

    def forward(self, x):
        return sum(self.trident([self.conv(x)] * (3 if self.training else 1))),


@pytest.mark.parametrize('memory', [1.0, 0.0, float('nan')])
def test_a_single_layer_that_computes_something_else_in_training(memory):
    model = classifier()
    model.backbone = dict(type='Branches', memory=memory)
    model['head'].in_channels = 8
    with pytest.raises(ConfigError, match=r"'backbone' gives other values when the network trains.*'backbone.conv'"):
        distiller(model, teacher(classifier()), dict(a=match('backbone')))
    built = distiller(model, teacher(classifier()), dict(a=match(dict(student='backbone.conv', teacher='backbone'))))
    assert torch.equal(built.backbone.trident.weight, torch.full((8, 8, 3, 3), memory)) or memory != memory
