"""Students that read themselves, and batches of other forms."""
import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmpretrain.structures import DataSample
from torch import nn

from mmfeatdistill.distillers.batch_errors import BatchError, explain_batch_errors, fault
from mmfeatdistill.errors import ConfigError
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
)


def student_with(**methods):
    """A classifier of a class of its own."""
    network = build(classifier())
    network.__class__ = type('Own', (type(network),), methods)
    return network


# --- the student reads itself ------------------------------------------------------------------------


def test_an_option_that_a_hook_sets_on_the_model_is_the_students():
    def loss(self, inputs, data_samples):
        return dict(loss=self.loss_lambda * super(type(self), self).loss(inputs, data_samples)['loss'])

    network = student_with(loss=loss)
    network.loss_lambda = 1.0
    model = distiller(network, teacher(classifier(16)), dict(a=match('backbone')))
    model.loss_lambda = 0.0
    assert network.loss_lambda == 0.0 and model.loss_lambda == 0.0
    assert losses_of(model, classification_batch())['loss'] == 0
    model.epoch = 3
    assert network.epoch == 3, 'one that it did not have either'
    del model.epoch
    assert not hasattr(network, 'epoch')
    with pytest.raises(AttributeError):
        del model.epoch


def test_the_distillers_own_attributes_stay_its_own():
    model = distiller(classifier(), teacher(classifier(16)), dict(a=match('backbone')))
    model.training = False
    assert model.student.training
    model.extra = nn.Linear(2, 2)
    assert model.student.extra is model.extra and 'extra.weight' in model.state_dict()


@pytest.mark.parametrize('move', ['to', 'cpu', 'cuda'])
def test_what_a_student_holds_aside_moves_as_alone(move):
    moved = []
    network = student_with(**{move: lambda self, *args, **kwargs: moved.append(args) or self})
    model = distiller(network, teacher(classifier(16)), dict(a=match('backbone')))
    if move == 'cuda' and not torch.cuda.is_available():
        with pytest.raises((AssertionError, RuntimeError)):
            model.cuda()
        return
    assert getattr(model, move)(*(['cpu'] if move == 'to' else [])) is model and len(moved) == 1


def test_ld_keeps_its_own_teacher_with_it():
    model = stock('mmdet::ld/ld_r18-gflv1-r101_fpn_1x_coco.py')
    model.update(teacher_ckpt=None, teacher_config=_small_gfl())
    _shrink(model)
    built = distiller(model, teacher(detector(16)), dict(a=match('neck')))
    built.to('meta')
    assert next(built.student.teacher_model.parameters()).is_meta
    built.train()
    assert not built.student.teacher_model.training


def _small_gfl():
    from mmengine.config import Config
    model = stock('mmdet::gfl/gfl_r50_fpn_1x_coco.py')
    _shrink(model)
    return Config(dict(model=model))


def _shrink(model):
    model.backbone.update(depth=18, base_channels=8, stem_channels=8, frozen_stages=-1, init_cfg=None)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    model.bbox_head.update(in_channels=16, feat_channels=16, num_classes=10, stacked_convs=1,
                           norm_cfg=dict(type='GN', num_groups=4))


@pytest.mark.parametrize('keys', ['backbone', 'neck', 'head', 'norm', 'conv', 'bn', 'layers', 'token'])
def test_options_of_the_students_parts_reach_no_connector(keys):
    objective = dict(match('backbone'), connector=dict(type='ConvBN'))
    model = distiller(classifier(), teacher(classifier(16)), {'backbone': objective, 'head_of_tokens': objective})
    wrapper = build_optim_wrapper(model, dict(
        optimizer=dict(type='SGD', lr=0.1), paramwise_cfg=dict(custom_keys={keys: dict(lr_mult=0.0)})))
    added = {id(parameter) for name, parameter in model.named_parameters() if name.startswith('distiller.')}
    rates = {group['lr'] for group in wrapper.param_groups for parameter in group['params'] if id(parameter) in added}
    assert len(added) == 6 and rates == {0.1}


def test_an_objective_may_be_named_like_a_part_of_the_student():
    model = distiller(classifier(), teacher(classifier(16)), dict(backbone=match('backbone')))
    assert losses_of(model, classification_batch())['backbone.loss_0'] > 0
    assert list(model.objectives) == ['backbone']


def test_a_load_hook_that_renames_every_key_keeps_the_connectors():
    def rename(state_dict, prefix, *_):
        for key in list(state_dict):
            state_dict[f'{prefix}inner.{key[len(prefix):]}'] = state_dict.pop(key)

    class Inner(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

    network = build(classifier())
    network._register_load_state_dict_pre_hook(rename)
    model = distiller(network, teacher(classifier(16)), dict(a=match('backbone')))
    state = {key: torch.full_like(value, 0.5) if key.startswith('distiller.') else value
             for key, value in model.state_dict().items()}
    model.load_state_dict(copy.copy(state), strict=False)
    assert all((value == 0.5).all() for key, value in model.state_dict().items()
               if key.startswith('distiller.') and 'num_batches' not in key)


# --- batches of other forms ----------------------------------------------------------------------------


def test_students_of_views_and_of_masked_images_are_refused_for_what_they_are():
    for name in ('mmpretrain::simclr/simclr_resnet50_8xb32-coslr-200e_in1k.py',
                 'mmpretrain::mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py'):
        model = stock(name)
        with pytest.raises(ConfigError, match=r'^model\.student: \w+ trains on views or masked images'):
            distiller(model, teacher(classifier()), dict(a=match('backbone')))


def test_students_of_branches_are_refused_for_what_they_are():
    model = stock('mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py')
    model.detector.backbone.init_cfg = None
    with pytest.raises(ConfigError, match=r'^model\.student: SoftTeacher trains on several branches'):
        distiller(model, teacher(detector()), dict(a=match('backbone')))


def test_a_tracker_is_refused_with_the_network_inside_that_would_do():
    """QDTrack trains on a key and a reference frame, and has no other pass."""
    model = stock('mmdet::qdtrack/qdtrack_faster-rcnn_r50_fpn_4e_base.py')
    inner = detector()
    inner.pop('_scope_')
    inner.pop('data_preprocessor')
    model.detector = inner
    with pytest.raises(ConfigError, match=r"a\.taps: student: QDTrack has no pass .*Take 'detector' \(FasterRCNN\)"):
        distiller(model, teacher(detector(16)), dict(a=match(dict(student='detector.neck', teacher='neck'))))


def test_images_in_groups_reach_the_teacher_one_by_one():
    """As mmdet's ReID has them: its batch has five dimensions, and one group."""
    def loss(self, inputs, data_samples):
        return dict(loss=self.extract_feat(inputs[0])[0].mean())

    model = distiller(student_with(loss=loss), teacher(classifier(16)), dict(a=match('backbone')))
    # A sample of a group notes the sizes of its images, with the teacher's own pixels to be compared.
    sample = DataSample(metainfo=dict(img_shape=[(64, 64)] * 3))
    for samples in ([], [sample]):
        losses = model(torch.randn(1, 3, 3, 64, 64), samples, mode='loss')
        assert losses['a.loss_0'].isfinite()
    own = dict(classifier(16), data_preprocessor=dict(type='ClsDataPreprocessor', mean=[1.] * 3, std=[2.] * 3))
    model = distiller(student_with(loss=loss), teacher(own), dict(a=match('backbone')))
    assert model(torch.randn(1, 3, 3, 64, 64), [sample], mode='loss')['a.loss_0'].isfinite()


def test_what_fails_again_while_it_is_explained_hides_no_error():
    """After a failed assertion on a GPU everything fails that looks at its tensors."""
    def find(model, batch):
        raise RuntimeError('device-side assert triggered')

    with pytest.raises(ValueError, match='the first error'), explain_batch_errors(build(classifier()), {}, find):
        raise ValueError('the first error')


def test_a_batch_of_views_is_not_blamed():
    views = [torch.zeros(4, 3, 8, 8), torch.zeros(4, 3, 8, 8)]
    assert fault(build(classifier()), dict(inputs=views, data_samples=[object()] * 4)) is None


def test_samples_in_one_dict_train_and_errors_of_the_student_are_shown():
    """As mmyolo collates them: one dict for the batch in place of a list of samples."""
    def loss(self, inputs, data_samples):
        if 'bboxes_labels' not in data_samples:
            raise KeyError('the student says what it lacks')
        return dict(loss=self.extract_feat(inputs)[0].mean())

    other = classifier(16)
    other.data_preprocessor.update(mean=[0, 0, 0], std=[255, 255, 255])
    model = distiller(student_with(loss=loss), teacher(other), dict(a=match('backbone')))
    samples = dict(bboxes_labels=torch.zeros(2, 6), img_metas=[dict(img_shape=(64, 64)), dict(img_shape=(48, 64))])
    losses = model(torch.randn(2, 3, 64, 64), samples, mode='loss')
    assert losses['a.loss_0'].isfinite()
    with pytest.raises(KeyError, match='the student says what it lacks'):
        model(torch.randn(2, 3, 64, 64), dict(img_metas=samples['img_metas']), mode='loss')


def test_a_module_that_sees_proposals_is_refused_though_there_is_one():
    model = stock('mmdet::point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py')
    model.backbone.update(depth=18, base_channels=8, stem_channels=8, frozen_stages=-1, init_cfg=None)
    model.neck.update(in_channels=[8, 16, 32, 64])
    model.test_cfg.rpn.max_per_img = 1
    with pytest.raises(ConfigError, match=r"a\.taps: .*rows for"):
        distiller(model, teacher(model), dict(a=match('roi_head.mask_head')))


@pytest.mark.parametrize('connector', ['ConvBN', 'ChannelMLP'])
def test_a_last_batch_of_one_image_trains(connector):
    objective = dict(match('neck'), connector=dict(type=connector))
    model = distiller(classifier(), teacher(classifier(16)), dict(a=objective)).train()
    before = copy.deepcopy(model.state_dict())
    losses = losses_of(model, classification_batch((64, 64)))
    assert losses['a.loss_0'].isfinite()
    for name, value in model.state_dict().items():
        if name.startswith('distiller.') and 'running' in name:
            assert torch.equal(value, before[name]), 'one vector has no statistics'


def test_a_batch_in_which_all_is_ignored_trains():
    from tests.helpers.models import segmentation_batch, segmenter
    batch = segmentation_batch()
    for sample in batch['data_samples']:
        sample.gt_sem_seg.data.fill_(255)
    losses = losses_of(distiller(segmenter(), teacher(segmenter(16)), dict(a=match('backbone'))), batch)
    assert losses['a.loss_0'].isfinite() and losses['a.loss_0'] > 0


def test_boxes_of_nothing_train():
    batch = detection_batch()
    for sample in batch['data_samples']:
        sample.gt_instances = sample.gt_instances[:0]
    assert losses_of(distiller(), batch)['fpn.loss_0'].isfinite()
    with pytest.raises(BatchError, match='the batch is empty'):
        distiller()(torch.zeros(0, 3, 64, 64), [], mode='loss')


def test_methods_that_nobody_would_call_are_refused():
    def _run_forward(self, data, mode):
        return {key: 10 * value for key, value in super(type(self), self)._run_forward(data, mode).items()}

    with pytest.raises(ConfigError, match=r'Own has a method _run_forward\(\) of its own, which nobody would call'):
        distiller(student_with(_run_forward=_run_forward), teacher(classifier(16)), dict(a=match('backbone')))
    with pytest.raises(ConfigError, match=r'state_dict\(\)'):
        distiller(student_with(state_dict=lambda self, *args, **kwargs: {}), teacher(classifier(16)),
                  dict(a=match('backbone')))
    distiller(student_with(parse_losses=lambda self, losses: losses, extra_repr=lambda self: ''),
              teacher(classifier(16)), dict(a=match('backbone')))


def test_labels_of_several_tasks_are_ground_truth():
    from mmpretrain.structures import DataSample, MultiTaskDataSample
    sample = MultiTaskDataSample()
    sample.set_field(DataSample().set_gt_label(77), 'color')
    assert fault(build(classifier()), dict(inputs=[torch.zeros(3, 8, 8)], data_samples=[sample])) is None
    empty = MultiTaskDataSample()
    empty.set_field(DataSample(), 'color')
    assert 'no ground truth' in fault(build(classifier()), dict(inputs=[torch.zeros(3, 8, 8)], data_samples=[empty]))
