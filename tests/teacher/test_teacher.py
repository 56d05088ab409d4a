import copy
import pickle

import pytest
import torch
from mmengine.runner import CheckpointLoader
from torch import nn

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.teacher.teacher import Teacher, build_teachers
from tests.helpers.models import (
    build,
    classification_batch,
    classifier,
    convnext,
    count_calls,
    detection_batch,
    detector,
    distiller,
    images,
    losses_of,
    match,
    segmenter,
    stock,
    teacher,
    total,
)

CONFIG = "_base_ = ['mmpretrain::_base_/models/resnet18.py']\ndefault_scope = 'mmpretrain'\n" \
         "model = dict(backbone=dict(stem_channels=8, base_channels=8), head=dict(in_channels=64))\n"


@pytest.fixture
def preprocessor():
    return build(classifier()).data_preprocessor


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'teacher.py'
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture
def checkpoint(tmp_path):
    """Weights that fit `classifier()`."""
    path = tmp_path / 'teacher.pth'
    torch.save(dict(state_dict=build(classifier()).state_dict()), path)
    return str(path)


@pytest.fixture
def zoo(monkeypatch):
    """Only the download is replaced: every URL gives the weights put here."""
    class Zoo:
        def __init__(self):
            self.asked, self.state_dict = [], {}

        def load(self, filename, map_location=None, logger='current'):
            self.asked.append(filename)
            return dict(state_dict=self.state_dict)

    zoo = Zoo()
    monkeypatch.setattr(CheckpointLoader, 'load_checkpoint', zoo.load)
    return zoo


# --- what a config may say -------------------------------------------------------------------


def test_a_config_file_and_a_checkpoint(config, tmp_path, preprocessor):
    source = Teacher(config, checkpoint=None, student_preprocessor=preprocessor).model
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'a.pth')
    (built,) = build_teachers(dict(config=config, checkpoint=str(tmp_path / 'a.pth')), preprocessor)
    assert built.load_report.complete and built.load_report.source == str(tmp_path / 'a.pth')
    for name, value in built.model.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name


def test_an_inline_model(checkpoint, preprocessor):
    (built,) = build_teachers(dict(model=classifier(), checkpoint=checkpoint), preprocessor)
    assert built.load_report.complete and type(built.model).__name__ == 'ImageClassifier'


def test_an_inline_model_without_a_preprocessor_takes_the_students(preprocessor):
    model = classifier()
    del model['data_preprocessor']
    (built,) = build_teachers(dict(model=model, checkpoint=None), preprocessor)
    assert torch.equal(built.model.data_preprocessor.mean, preprocessor.mean)
    assert built.model.data_preprocessor is not preprocessor
    assert built.input.convert.is_identity


def test_several(checkpoint, config, preprocessor):
    built = build_teachers([dict(model=classifier(), checkpoint=checkpoint), dict(config=config, checkpoint=None)],
                           preprocessor)
    assert [teacher.load_report is None for teacher in built] == [False, True]


@pytest.mark.parametrize('name', [
    'mmpretrain::resnet/resnet18_8xb16_cifar10.py', 'resnet18_8xb16_cifar10', 'mmpretrain::resnet18_8xb16_cifar10'])
@pytest.mark.parametrize('form', ['string', 'dict', 'zoo'])
def test_the_zoo_gives_config_and_weights(zoo, preprocessor, name, form):
    source = build(stock('mmpretrain::resnet/resnet18_8xb16_cifar10.py'))
    zoo.state_dict = source.state_dict()
    cfg = {'string': name, 'dict': dict(config=name), 'zoo': dict(config=name, checkpoint='zoo')}[form]
    (built,) = build_teachers(cfg, preprocessor)
    (url,) = zoo.asked
    assert url.startswith('https://') and url.endswith('/resnet/resnet18_b16x8_cifar10_20210528-bd6371c8.pth')
    assert built.load_report.complete and built.load_report.source == url
    assert torch.equal(built.model.head.fc.weight, source.head.fc.weight)


def test_models_that_share_a_config_have_weights_of_their_own(zoo, preprocessor):
    zoo.state_dict = dict(anything=torch.ones(1))
    for name in ('efficientnet-b0_3rdparty_8xb32_in1k', 'efficientnet-b0_3rdparty-ra-noisystudent_in1k'):
        zoo.asked.clear()
        with pytest.raises(ConfigError, match='0 tensors loaded'):
            build_teachers(dict(config=name, strict=False), preprocessor)
        assert [url.rpartition('/')[2].startswith(name) for url in zoo.asked] == [True]


def test_the_weights_of_another_model_are_refused(zoo, preprocessor):
    zoo.state_dict = build(classifier()).state_dict()
    with pytest.raises(ConfigError) as error:
        build_teachers('resnet18_8xb16_cifar10', preprocessor)
    for word in ('model.teacher.checkpoint: does not fit the teacher. https://', 'of another shape (',
                 'strict=False'):
        assert word in str(error.value), error.value


def test_without_strict_what_fits_is_loaded(tmp_path, preprocessor):
    state_dict = build(classifier()).state_dict()
    del state_dict['head.fc.weight']
    torch.save(state_dict, tmp_path / 'a.pth')
    cfg = dict(model=classifier(), checkpoint=str(tmp_path / 'a.pth'))
    with pytest.raises(ConfigError, match=r'1 missing \(head.fc.weight\)'):
        build_teachers(cfg, preprocessor)
    (built,) = build_teachers(dict(cfg, strict=False), preprocessor)
    assert built.load_report.missing == ('head.fc.weight',)
    assert torch.equal(built.model.backbone.conv1.weight, state_dict['backbone.conv1.weight'])


def test_what_the_checkpoint_has_beyond_the_model_is_no_error(tmp_path, preprocessor):
    state_dict = build(classifier()).state_dict()
    state_dict['more'] = torch.ones(1)
    torch.save(state_dict, tmp_path / 'a.pth')
    (built,) = build_teachers(dict(model=classifier(), checkpoint=str(tmp_path / 'a.pth')), preprocessor)
    assert built.load_report.unexpected == ('more',)


def test_its_own_weights_are_asked_for_by_name(checkpoint, preprocessor):
    """Without a checkpoint nothing is downloaded, as an init_cfg may want."""
    model = classifier()
    model.backbone.init_cfg = dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone')
    (built,) = build_teachers(dict(model=model, checkpoint='init_cfg'), preprocessor)
    assert torch.equal(built.model.backbone.conv1.weight,
                       torch.load(checkpoint)['state_dict']['backbone.conv1.weight'])
    model.backbone.init_cfg = dict(type='Pretrained', checkpoint='nowhere.pth')
    build_teachers(dict(model=model, checkpoint=None), preprocessor)
    with pytest.raises(ConfigError, match='^model.teacher.checkpoint: .*nowhere.pth'):
        build_teachers(dict(model=model, checkpoint='init_cfg'), preprocessor)


def test_what_no_checkpoint_gives_is_initialized(tmp_path, preprocessor):
    """SSD's scales, for one, are whatever was in memory until then."""
    model = stock('mmdet::_base_/models/ssd300.py')  # its backbone would be downloaded
    torch.empty(512).fill_(torch.nan)  # memory that is found again
    (drawn,) = build_teachers(dict(model=model, checkpoint=None), preprocessor)
    state_dict = drawn.model.state_dict()
    del state_dict['neck.l2_norm.weight']
    torch.save(state_dict, tmp_path / 'a.pth')
    (partly,) = build_teachers(dict(model=model, checkpoint=str(tmp_path / 'a.pth'), strict=False), preprocessor)
    assert all((built.model.neck.l2_norm.weight == 20).all() for built in (drawn, partly))


def test_the_config_is_not_changed(preprocessor):
    cfg = dict(model=classifier(), checkpoint=None)
    before = copy.deepcopy(cfg)
    build_teachers(cfg, preprocessor)
    assert cfg == before


def test_mmseg_names_resolve_and_install_nothing(monkeypatch, preprocessor):
    import subprocess
    monkeypatch.setattr(subprocess, 'Popen', lambda *args, **kwargs: pytest.fail(f'a process was started: {args}'))
    (built,) = build_teachers(dict(config='mmseg::_base_/models/fcn_unet_s5-d16.py', checkpoint=None), preprocessor)
    assert type(built.model).__module__.startswith('mmseg.')


# --- frozen for good -------------------------------------------------------------------------


def noisy():
    """A teacher with stochastic depth, dropout and batch normalization."""
    model = convnext(drop_path_rate=0.5)
    return model


def segmenter_with_dropout():
    model = segmenter(16)
    model.decode_head.dropout_ratio = 0.5
    return model


def switch_everything_to_training(model):
    model.train()
    model.train(True)
    for built in model.teachers:
        built.model.train()
        for module in built.model.modules():
            module.train()
            module.train(mode=True)


@pytest.mark.parametrize('make, tap, kinds', [
    (noisy, dict(student='neck', teacher='backbone'), ('DropPath',)),
    (segmenter_with_dropout, 'decode_head', ('Dropout2d', 'BatchNorm2d')),
    (lambda: detector(16), dict(student='backbone', teacher='neck[3]'), ('BatchNorm2d',))])
def test_it_stays_in_eval_mode_whoever_calls_train(make, tap, kinds):
    taps = tap if isinstance(tap, dict) else dict(student='backbone', teacher=tap)
    model = distiller(classifier(), teacher(make()), dict(a=match(taps)))
    (built,) = model.teachers
    present = {type(module).__name__ for module in built.model.modules()}
    assert present.issuperset(kinds), 'this teacher has nothing random left; the test has lost its point'
    before = copy.deepcopy(built.model.state_dict())
    switch_everything_to_training(model)
    assert model.training and model.student.training and model.backbone.training
    assert not any(module.training for module in built.model.modules())
    data = model.data_preprocessor(classification_batch(), training=True)
    first, second = (built(data['inputs'], data['data_samples']) for _ in range(2))
    for a, b in zip(first[taps['teacher']], second[taps['teacher']]):
        assert torch.equal(a, b)
    for name, value in built.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_noisy_teachers_are_noisy_when_not_frozen():
    """Otherwise the test above proves nothing."""
    model = build(noisy())
    model.train()
    image = torch.randn(4, 3, 64, 64)
    assert not torch.equal(model.extract_feat(image)[0], model.extract_feat(image)[0])


def test_not_one_bit_changes_while_the_student_learns():
    model = distiller(detector(), [teacher(detector(16, 32)), teacher(detector(16, 16))],
                      dict(fpn=match(), stage=match('backbone.layer3')))
    model.init_weights()
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    before = [copy.deepcopy(built.model.state_dict()) for built in model.teachers]
    student = copy.deepcopy(model.state_dict())
    for _ in range(3):
        optimizer.zero_grad()
        total(model, detection_batch()).backward()
        optimizer.step()
    assert any(not torch.equal(value, student[name]) for name, value in model.state_dict().items())
    for built, expected in zip(model.teachers, before):
        assert not any(p.requires_grad or p.grad is not None for p in built.model.parameters())
        for name, value in built.model.state_dict().items():
            assert torch.equal(value, expected[name]), name


# --- no part of the model --------------------------------------------------------------------


def test_it_is_in_none_of_the_models_tables():
    model = distiller(classifier(), teacher(classifier(16)), dict(a=match('backbone')))
    (built,) = model.teachers
    of_teacher = {id(tensor) for tensor in [*built.model.parameters(), *built.model.buffers()]}
    assert not of_teacher & {id(tensor) for tensor in [*model.parameters(), *model.buffers()]}
    assert not of_teacher & {id(tensor) for tensor in model.state_dict(keep_vars=True).values()}
    assert not {id(module) for module in built.model.modules()} & {id(module) for module in model.modules()}


def test_copies_share_it():
    model = distiller(classifier(), teacher(classifier(16)), dict(a=match('backbone')))
    twin = copy.deepcopy(model)
    assert twin.teachers[0].model is model.teachers[0].model
    assert twin.student is not model.student and twin.backbone is twin.student.backbone
    torch.testing.assert_close(total(twin, batch := classification_batch()), total(model, batch))


def test_a_copy_that_moves_leaves_it_where_it_is():
    """As EMA on another device or in another precision does."""
    model = distiller(classifier(), teacher(classifier(16)), dict(a=match('backbone')))
    twin = copy.deepcopy(model).to(torch.float64)
    assert twin.backbone.conv1.weight.dtype == torch.float64
    assert model.teachers[0].model.backbone.conv1.weight.dtype == torch.float32
    assert total(model, classification_batch()).isfinite()
    model.to(torch.float64)
    assert model.teachers[0].model.backbone.conv1.weight.dtype == torch.float64


def test_it_can_be_pickled_and_stays_frozen():
    model = distiller(classifier(), teacher(classifier(16)), dict(a=match('backbone')))
    again = pickle.loads(pickle.dumps(model))
    switch_everything_to_training(again)
    assert not any(module.training for module in again.teachers[0].model.modules())
    torch.testing.assert_close(total(again.eval(), batch := classification_batch()), total(model.eval(), batch))


@pytest.mark.parametrize('move, dtype', [
    (lambda m: m.to(torch.float64), torch.float64), (lambda m: m.double(), torch.float64),
    (lambda m: m.half(), torch.float16), (lambda m: m.bfloat16(), torch.bfloat16)])
def test_it_follows_the_student(move, dtype):
    model = distiller(classifier(), teacher(classifier(16)), dict(a=match('backbone')))
    move(model)
    tensors = [*model.teachers[0].model.parameters(), *model.teachers[0].model.buffers(),
               *model.teachers[0].input.convert.buffers()]
    assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} == {dtype}


def test_what_a_network_prepares_for_eval_mode_follows_too():
    """The attention of LeViT, whose student's is not prepared before its first evaluation either."""
    levit = stock('mmpretrain::levit/levit-128s_8xb256_in1k.py')
    model = distiller(levit, dict(model=levit, checkpoint=None), dict(a=match('backbone')))
    attention = model.teachers[0].model.backbone.stages[0][0].block
    assert attention.ab.dtype == torch.float32
    model.double()
    assert attention.ab.dtype == torch.float64 and not attention.ab.requires_grad
    switch_everything_to_training(model)
    assert not any(module.training for module in model.teachers[0].model.modules())


def test_it_computes_in_the_students_precision():
    model = distiller(classifier(), teacher(classifier(16)), dict(a=match('backbone'))).to(torch.float64)
    inputs = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    assert model.teachers[0](inputs, None)['backbone'][0].dtype == torch.float64


def test_it_follows_to_another_device():
    model = distiller(classifier(), teacher(classifier(16)), dict(a=match('backbone'))).to('meta')
    assert {p.device.type for p in model.teachers[0].model.parameters()} == {'meta'}


# --- what it sees and how far it runs --------------------------------------------------------


def test_the_teacher_of_another_library_and_normalization():
    """A classifier teaches a detector: built in its own scope, and fed its own kind of batch."""
    caffe = classifier(16)
    caffe.data_preprocessor = dict(type='ClsDataPreprocessor', mean=[103.53, 116.28, 123.675], std=[1., 1., 1.],
                                   to_rgb=False)
    model = distiller(detector(), teacher(caffe), dict(a=match(dict(student='backbone[3]', teacher='backbone'))))
    (built,) = model.teachers
    assert type(built.model).__module__.startswith('mmpretrain.')
    assert type(built.model.backbone).__module__.startswith('mmpretrain.')
    assert type(model.backbone).__module__.startswith('mmdet.')

    batch = detection_batch()
    batch['inputs'] = images((64, 64), (64, 64))
    data = model.data_preprocessor(copy.deepcopy(batch), training=True)
    seen = built(data['inputs'], data['data_samples'])['backbone'][0]
    own = built.model.data_preprocessor(dict(inputs=batch['inputs']))['inputs']
    with torch.no_grad():
        expected = built.model.backbone(own)[0]
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-4)
    assert not built.input.convert.is_identity


def test_nothing_behind_its_last_tap_runs():
    model = distiller(detector(), teacher(detector(16, 32)), dict(a=match('neck'), b=match('backbone.layer2')))
    parts = dict(model.teachers[0].model.named_children())
    calls = {name: count_calls(part) for name, part in parts.items()}
    inside = {name: count_calls(getattr(parts['backbone'], name)) for name in ('layer2', 'layer4')}
    losses_of(model, detection_batch())
    assert {name: len(c) for name, c in calls.items()} == dict(
        data_preprocessor=0, backbone=1, neck=0, rpn_head=0, roi_head=0)  # hooks fire after the exit, for the last tap
    assert {name: len(c) for name, c in inside.items()} == dict(layer2=1, layer4=1)


def test_heads_that_do_not_accept_the_features_are_not_asked():
    """Feature maps out of a vision transformer: its own head wants the class token."""
    from tests.helpers.models import transformer
    vit = transformer()
    vit.backbone.out_type = 'featmap'
    model = distiller(classifier(), teacher(vit), dict(a=match('backbone')))
    assert losses_of(model, classification_batch())['a.loss_0'].isfinite()


def test_targets_have_no_gradient_and_leave_no_graph():
    model = distiller(detector(), teacher(detector(16, 32)))
    inputs = torch.randn(2, 3, 64, 64, requires_grad=True)
    for feature in model.teachers[0](inputs, None)['neck']:
        assert not feature.requires_grad and feature.grad_fn is None


def test_a_batch_of_one():
    model = distiller(classifier(), teacher(classifier(16)), dict(a=match('backbone')))
    (feature,) = model.teachers[0](torch.randn(1, 3, 64, 64), None)['backbone']
    assert feature.shape == (1, 128, 2, 2)


def test_batchnorm_statistics_are_not_those_of_the_batch():
    """A teacher in training mode would give another feature for the same image in another batch."""
    model = distiller(classifier(), teacher(classifier(16)), dict(a=match('backbone'))).train()
    inputs = torch.randn(4, 3, 64, 64)
    alone = model.teachers[0](inputs[:1], None)['backbone'][0]
    torch.testing.assert_close(model.teachers[0](inputs, None)['backbone'][0][:1], alone, rtol=1e-4, atol=1e-5)
    assert isinstance(model.teachers[0].model.backbone.bn1, nn.BatchNorm2d)
