"""Training without labels: only the objectives train, and what is saved is an ordinary backbone."""
import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine import registry as root
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope

from mmfeatdistill import ConfigError, LabelFreeDistiller
from mmfeatdistill.checks.loss_balance import measure_losses
from mmfeatdistill.distillers.batch_errors import BatchError
from tests.engine.test_runner import same_tensors, straight_and_resumed
from tests.helpers.models import (
    BN,
    classification_batch,
    classifier,
    count_calls,
    detection_batch,
    detector,
    images,
    losses_of,
    match,
    segmentation_batch,
    segmenter,
    stock,
    teacher,
    total,
)
from tests.helpers.runs import CONFIGS, train

CONFIG = 'label_free/channel-mlp_resnet18-w8_digits-unlabeled.py'
RGB = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)


def distiller(student=None, tap='backbone', teachers=None, **options) -> LabelFreeDistiller:
    """A detector of which the backbone is tapped, and a wider one."""
    return LabelFreeDistiller(student or detector(), teachers or teacher(detector(16)),
                              dict(stages=match(tap)), **options)


def unlabeled(*sizes) -> dict:
    """Images of a dataset of mmpretrain that knows no labels."""
    from mmpretrain.structures import DataSample
    sizes = sizes or ((64, 64), (64, 64))
    return dict(inputs=images(*sizes), data_samples=[DataSample(metainfo=dict(img_shape=size)) for size in sizes])


def learning(model) -> set[str]:
    """The parts of a model that learn."""
    return {name.partition('.')[0] for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize('make, tap, parts', [
    (classifier, 'backbone', {'backbone'}), (classifier, 'head.fc', {'backbone', 'head'}),
    (segmenter, 'backbone[-1]', {'backbone'}), (segmenter, 'decode_head.convs', {'backbone', 'decode_head'}),
    (detector, 'backbone', {'backbone'}), (detector, 'neck', {'backbone', 'neck'})])
def test_a_whole_student_learns_what_is_tapped_and_keeps_the_rest(make, tap, parts):
    model = distiller(make(), tap, teacher(make()))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    heads = [count_calls(child) for name, child in model.student.named_children()
             if name not in parts | {'distiller'} and list(child.parameters())]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1.0)
    total(model, unlabeled()).backward()
    optimizer.step()
    changed = {name.partition('.')[0] for name, value in model.state_dict().items()
               if not torch.equal(value, before[name])}
    assert learning(model) == {*parts, 'distiller'} == changed
    assert not any(heads), 'a part after the last tap has run'


def test_only_objectives_have_losses_and_they_are_those_of_the_labeled_training():
    model, batch = distiller(tap='neck'), detection_batch()
    from mmfeatdistill import FeatureDistiller
    labeled = FeatureDistiller(detector(), teacher(detector(16)), dict(stages=match('neck')))
    labeled.load_state_dict(model.state_dict())
    labeled.teachers[0].model.load_state_dict(model.teachers[0].model.state_dict())
    torch.manual_seed(0)
    found = losses_of(model.train(), batch)
    torch.manual_seed(0)
    wanted = losses_of(labeled.train(), batch)
    assert set(found) == {name for name in wanted if name.startswith('stages.')} and len(found) == 5
    assert all(torch.allclose(value, wanted[name], rtol=1e-5) for name, value in found.items())


@pytest.mark.parametrize('make', [classifier, segmenter, detector])
@pytest.mark.parametrize('batch', [unlabeled, classification_batch, segmentation_batch, detection_batch,
                                   lambda *sizes: dict(inputs=images(*sizes))],
                         ids=['unlabeled', 'classes', 'maps', 'boxes', 'images'])
def test_any_dataset_teaches_any_student_and_no_label_is_seen(make, batch):
    model = distiller(make(), 'backbone[-1]', teacher(make()))
    model.train()
    data = model.data_preprocessor(batch((64, 64), (64, 64)), training=True)
    assert all(not sample.keys() for sample in data['data_samples'])
    assert data['data_samples'][0].img_shape == (64, 64)
    assert set(model(**data, mode='loss')) == {'stages.loss_0'}
    kept = model.data_preprocessor(classification_batch(), training=False)['data_samples']
    assert [sample.gt_label.item() for sample in kept] == [0, 1], 'a validation has its labels'


def test_preprocessors_that_pad_masks_and_mix_images_do_so():
    mixed = classifier()
    mixed.data_preprocessor.update(num_classes=10, to_onehot=True)
    mixed.train_cfg = dict(augments=dict(type='Mixup', alpha=1.0))
    model = distiller(mixed, 'backbone', teacher(classifier()))
    batch = unlabeled()
    torch.manual_seed(0)
    mixed = model.data_preprocessor(copy.deepcopy(batch), training=True)['inputs']
    assert not torch.equal(mixed, model.data_preprocessor(copy.deepcopy(batch), training=False)['inputs'])
    masks = detector()
    masks.data_preprocessor.update(pad_mask=True, pad_size_divisor=32, batch_augments=[
        dict(type='BatchSyncRandomResize', random_size_range=(64, 64), size_divisor=32, interval=1)])
    MessageHub.get_current_instance().update_info('iter', 0)
    assert losses_of(distiller(masks), unlabeled((64, 50), (40, 64)))
    MessageHub.get_current_instance().pop_info('iter')


def test_a_backbone_alone_is_a_student():
    backbone = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8, _scope_='mmpretrain')
    model = distiller(backbone, 'backbone', teacher(classifier(16)), data_preprocessor=RGB)
    assert set(losses_of(model, unlabeled())) == {'stages.loss_0'}
    names = {name for name in model.state_dict() if not name.startswith('distiller.')}
    assert names == {f'backbone.{name}' for name in root.MODELS.build(backbone).state_dict()}
    model = distiller(dict(type='mmdet.ResNet', depth=18, base_channels=8, stem_channels=8), 'backbone',
                      data_preprocessor=RGB)
    assert len(losses_of(model, unlabeled())) == 4
    headless = classifier()
    headless.pop('head')
    headless.pop('neck')
    assert learning(distiller(headless, 'backbone', teacher(classifier()))) == {'backbone', 'distiller'}


@pytest.mark.parametrize('objective', [
    dict(type='FGD', taps=['neck']), dict(type='LSHRoI'),
    dict(type='LSH', taps=['roi_head.bbox_head.fc_cls:in'], only_correct=True),
    dict(type='Decoupled', taps=['roi_head.bbox_head.fc_cls']),
    dict(type='CrossHead', taps=['bbox_head.cls_convs.2:each']), dict(type='TargetAware', taps=['bbox_head']),
    dict(type='FeatureMatch', taps=['neck'], weight=dict(type='GroundTruth'), loss=dict(type='SquaredError'))],
    ids=lambda objective: objective['type'])
def test_objectives_that_look_at_labels_are_refused(objective):
    with pytest.raises(ConfigError, match=r"objectives\.mine: \w+ looks at the labels .*type='FeatureMatch'"):
        LabelFreeDistiller(detector(), teacher(detector()), dict(mine=objective))


def test_taps_are_compared_in_training_without_labels():
    """DDRNet's backbone gives two tensors in training, and one when it predicts."""
    ddrnet = stock('mmseg::ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py')
    ddrnet.data_preprocessor.size = (64, 64)
    ddrnet.backbone.update(channels=8, ppm_channels=16, norm_cfg=BN, init_cfg=None)
    ddrnet.decode_head.update(in_channels=32, channels=8, norm_cfg=BN)
    model = distiller(ddrnet, 'backbone', teacher(copy.deepcopy(ddrnet)))
    [(student, target)] = [(s, t) for s, t in zip(*_read(model))]
    assert student.shape == target.shape


def _read(model) -> list:
    """What an objective compares in a training step."""
    seen = []
    model.objectives['stages'].loss.register_forward_pre_hook(lambda _, args: seen.extend(args))
    losses = losses_of(model.train(), unlabeled())
    assert set(losses) == {'stages.loss_0'}
    return [[seen[0]], [seen[1]]]


def test_nothing_left_to_train_on_and_faults_of_images_are_said():
    model = distiller()
    with pytest.raises(BatchError, match='images have 1 channels'):
        losses_of_gray(model)
    model.objectives['stages'].weight = 0.0
    with pytest.raises(RuntimeError, match=r'all of them \(stages\) are switched off'):
        losses_of(model, unlabeled())


def losses_of_gray(model) -> dict:
    return model(torch.zeros(2, 1, 64, 64), None, mode='loss')


def test_checkpointed_blocks_learn_too():
    student = classifier()
    student.backbone.with_cp = True
    model = distiller(student, 'backbone', teacher(classifier()))
    assert all(parameter.requires_grad for parameter in model.backbone.parameters())


# ---- with a runner, on real images

def config(work_dir, name: str) -> Config:
    """Four iterations in bfloat16, of a teacher that knows nothing."""
    cfg = Config.fromfile(CONFIGS / CONFIG)
    cfg.merge_from_dict({
        'work_dir': str(work_dir / name), 'log_level': 'ERROR', 'model.teacher.checkpoint': None,
        'train_cfg.max_epochs': 2, 'default_hooks.logger.interval': 1,
        'optim_wrapper.type': 'mmfeatdistill.CPUAmpOptimWrapper'})
    cfg.train_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False, num_batch_per_epoch=2)
    return cfg


@pytest.fixture(scope='module')
def trained(digits, tmp_path_factory):
    """The same training without an interruption and with one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(digits)
        return straight_and_resumed(partial(config, tmp_path_factory.mktemp('label_free')), crash_at=3)


def test_resuming_is_exact(trained):
    straight, resumed = trained
    assert straight.iter == resumed.iter == 4
    assert same_tensors(straight.model.state_dict(), resumed.model.state_dict())
    assert {name for name in straight.message_hub.log_scalars if 'loss' in name} == {
        'train/loss', 'train/stage4.loss_0'}


def test_nothing_is_weighed_against_a_task_that_is_not_trained(in_digits, tmp_path):
    cfg = config(tmp_path, 'balanced')
    with pytest.raises(ConfigError, match=r'^model\.type: LabelFreeDistiller computes no loss of a task'):
        measure_losses(copy.deepcopy(cfg), iterations=2)
    cfg.custom_hooks.append(dict(type='mmfeatdistill.BalanceHook', objective='stage4', share=0.5))
    with pytest.raises(ConfigError, match=r"^custom_hooks\.BalanceHook\('stage4'\): LabelFreeDistiller computes no"):
        train(cfg)


@pytest.mark.parametrize('second', ['resnet18-w8_digits-pretrained.py', 'faster-rcnn_r18-w8_fpn_digits-pretrained.py'])
def test_the_backbone_is_loaded_by_a_classifier_and_a_detector(trained, second):
    file = Path(trained[0].work_dir) / 'epoch_2.pth'
    saved = torch.load(file, weights_only=False)['state_dict']
    cfg = Config.fromfile(CONFIGS / 'label_free' / second)
    cfg.model.backbone.init_cfg.checkpoint = str(file)
    init_default_scope(cfg.default_scope)
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    model = root.MODELS.build(cfg.model)
    model.init_weights()
    loaded = model.backbone.state_dict()
    wanted = {name.removeprefix('backbone.'): value for name, value in saved.items() if name.startswith('backbone.')}
    assert loaded.keys() == wanted.keys() and len(loaded) > 100 and same_tensors(loaded, wanted)
