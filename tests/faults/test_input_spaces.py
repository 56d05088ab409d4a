"""What the images of a network are is found, or an error; it is never assumed."""
import copy

import pytest
import torch
from mmengine import registry as root
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor, ImgDataPreprocessor
from torch import nn

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.teacher.input_space import RAW, InputSpace, contradiction, pipeline_space
from mmfeatdistill.teacher.teacher import Teacher
from tests.faults.conftest import said
from tests.helpers.models import (
    RGB,
    build,
    classification_batch,
    classifier,
    detection_batch,
    detector,
    distiller,
    images,
    losses_of,
    match,
    teacher,
)

NORMALIZE = dict(type='Normalize', **RGB, to_rgb=True)
PACK = dict(type='PackInputs')
RAW_PREPROCESSOR = dict(type='ClsDataPreprocessor', mean=None, std=None)


def raw_classifier(width=8):
    model = classifier(width)
    model.data_preprocessor = dict(RAW_PREPROCESSOR)
    return model


def normalized(batch):
    """What NORMALIZE makes of a raw batch."""
    mean, std = (torch.tensor(RGB[name]).view(3, 1, 1) for name in ('mean', 'std'))
    return dict(batch, inputs=[(image.flip(0).float() - mean) / std for image in batch['inputs']])


class Wrapped(BaseDataPreprocessor):
    """A preprocessor of some other library that holds another under its own name."""

    def __init__(self, inner):
        super().__init__()
        self.det_proc = inner

    def forward(self, data, training=False):
        return self.det_proc(data, training)


class UnitScaled(BaseDataPreprocessor):
    """It has mean and std, of pixels from 0 to 1."""

    def __init__(self):
        super().__init__()
        self.mean, self.std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def forward(self, data, training=False):
        data = self.cast_data(data)
        images = data['inputs'] if isinstance(data['inputs'], torch.Tensor) else torch.stack(data['inputs'])
        images = images.flip(1).float() / 255
        return dict(data, inputs=(images - self.mean.view(3, 1, 1)) / self.std.view(3, 1, 1))


class WithoutBuffers(BaseDataPreprocessor):
    """It normalizes, and has nothing by the names that are known."""

    def forward(self, data, training=False):
        return dict(data, inputs=torch.stack([image.float() / 127.5 - 1 for image in data['inputs']]))


class Needy(WithoutBuffers):
    """It cannot be run without what its own pipeline packs."""

    def __init__(self, batch_augments=None):
        super().__init__()

    def forward(self, data, training=False):
        return super().forward(dict(data, inputs=data['frames']))


class Equalizing(BaseDataPreprocessor):
    """It stretches the contrast of each image."""

    def forward(self, data, training=False):
        images = torch.stack(list(data['inputs'])).float()
        return dict(data, inputs=images / images.amax((1, 2, 3), keepdim=True).clamp(min=1))


def built(kind, **options):
    return root.MODELS.build(dict(type=kind, **options))


def imagenet():
    return ImgDataPreprocessor(**RGB, bgr_to_rgb=True, pad_value=3, pad_size_divisor=16)


@pytest.mark.parametrize('make', [
    lambda: built('mmdet.MultiBranchDataPreprocessor', data_preprocessor=dict(
        type='mmdet.DetDataPreprocessor', **RGB, bgr_to_rgb=True, pad_value=3, pad_size_divisor=16)),
    lambda: built('mmpretrain.TwoNormDataPreprocessor', **RGB, to_rgb=True, second_mean=[127.5] * 3,
                  second_std=[127.5] * 3, pad_value=3, pad_size_divisor=16),
    lambda: built('mmpretrain.SelfSupDataPreprocessor', **RGB, to_rgb=True, pad_value=3, pad_size_divisor=16),
    lambda: built('mmdet.TrackDataPreprocessor', **RGB, bgr_to_rgb=True, pad_value=3, pad_size_divisor=16),
    lambda: built('mmdet.DetDataPreprocessor', **RGB, bgr_to_rgb=True, pad_value=3, pad_size_divisor=16,
                  batch_augments=[dict(type='mmdet.BatchFixedSizePad', size=(64, 64), img_pad_value=9)]),
    lambda: built('mmseg.SegDataPreProcessor', **RGB, bgr_to_rgb=True, pad_val=3, size_divisor=16),
    lambda: Wrapped(imagenet()), lambda: Wrapped(Wrapped(imagenet())),
], ids=['branches', 'two norms', 'self-supervised', 'video', 'fixed size', 'segmentation', 'wrapped', 'wrapped twice'])
def test_wrapped_and_branched_preprocessors(make):
    space = InputSpace.of(make())
    assert space.reverses_channels and space.pad_value == 3
    torch.testing.assert_close(space.mean.float(), torch.tensor(RGB['mean']))
    torch.testing.assert_close(space.std.float(), torch.tensor(RGB['std']))


def test_foreign_preprocessors_are_known_by_what_they_do():
    unit, plain = InputSpace.of(UnitScaled()), InputSpace.of(WithoutBuffers())
    assert unit.reverses_channels and not plain.reverses_channels
    torch.testing.assert_close(unit.mean.float(), torch.tensor([0.485, 0.456, 0.406]) * 255, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(unit.std.float(), torch.tensor([0.229, 0.224, 0.225]) * 255, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(plain.mean.float(), torch.full((3,), 127.5), rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError, match='Needy has no mean and std, and fails on a plain image'):
        InputSpace.of(Needy())
    with pytest.raises(ValueError, match='Equalizing does more than to normalize each channel'):
        InputSpace.of(Equalizing())


def test_an_unknown_preprocessor_is_an_error_until_its_input_is_stated():
    student = build(classifier()).data_preprocessor
    root.MODELS.register_module(name='NeedyPreprocessor', module=Needy, force=True)
    model = classifier()
    model.data_preprocessor = dict(type='mmengine.NeedyPreprocessor', _scope_='mmengine')
    with pytest.raises(ConfigError, match=r"^model.teacher.input: the teacher's Needy has no mean and std.*State it: "
                                          r'model.teacher.input=dict\(mean=\[...\]'):
        Teacher(model=model, checkpoint=None, student_preprocessor=student)
    caffe = dict(mean=[103.53, 116.28, 123.675], std=[1., 1., 1.], channel_order='bgr')
    made = Teacher(model=model, checkpoint=None, student_preprocessor=student, input=caffe)
    batch = student(classification_batch(), True)['inputs']
    expected = batch.mul(torch.tensor(RGB['std']).view(3, 1, 1)).flip(1) + (
        torch.tensor(RGB['mean']).flip(0) - torch.tensor(caffe['mean'])).view(3, 1, 1)
    torch.testing.assert_close(made.input.convert(batch), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('stated, words', [
    (dict(mean=[1, 2, 3]), "channel_order: expected 'rgb' or 'bgr', got None"),
    (dict(mean=[1, 2, 3], channel_order='rgb'), 'std: expected a list of numbers'),
    (dict(mean=[1, 2, 3], std=[1, 2], channel_order='rgb'), 'std: expected as many'),
    (dict(mean=[1, 2, 3], std=[1, 0, 1], channel_order='rgb'), 'std: expected as many positive numbers'),
    (dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], channel_order='rgb'),
     r'mean=\[123.675, 116.28, 103.53\]'),
    (dict(mean=[1], std=[1], order='rgb'), "has no 'order'")])
def test_what_is_stated_wrongly(stated, words):
    with pytest.raises(ConfigError, match=f'^model.teacher.input: .*{words}'):
        Teacher(model=classifier(), checkpoint=None, student_preprocessor=build(classifier()).data_preprocessor,
                input=stated)


WRAPPERS = [
    dict(pipeline=[NORMALIZE, PACK]),
    dict(type='RepeatDataset', times=3, dataset=dict(pipeline=[NORMALIZE, PACK])),
    dict(type='ConcatDataset', datasets=[dict(pipeline=[NORMALIZE, PACK]), dict(pipeline=[NORMALIZE, PACK])]),
    dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=dict(
        type='RepeatDataset', dataset=dict(pipeline=[NORMALIZE]))),
    dict(type='MultiImageMixDataset', dataset=dict(pipeline=[dict(type='LoadImageFromFile')]),
         pipeline=[dict(type='Mosaic'), NORMALIZE, PACK]),
    dict(pipeline=[dict(type='MultiBranch', branch_field=['a', 'b'], a=[NORMALIZE, PACK], b=[NORMALIZE, PACK])]),
    dict(pipeline=[dict(type='TransformBroadcaster', transforms=[NORMALIZE])]),
    dict(pipeline=[dict(type='mmcv.Normalize', **RGB), PACK]),
    dict(pipeline=[dict(type='ToPIL', to_rgb=True), dict(type='torchvision/ToTensor'), dict(
        type='torchvision/Normalize', mean=[v / 255 for v in RGB['mean']], std=[v / 255 for v in RGB['std']]), PACK]),
    dict(pipeline=[dict(type='ToPIL', to_rgb=True), dict(type='torchvision/ToTensor'), dict(
        type='torchvision/ConvertImageDtype', dtype=torch.float32), dict(
        type='torchvision/Normalize', mean=[v / 255 for v in RGB['mean']], std=[v / 255 for v in RGB['std']]), PACK]),
]


@pytest.mark.parametrize('dataset', WRAPPERS, ids=range(len(WRAPPERS)))
def test_pipelines_that_normalize_are_seen(dataset):
    space = pipeline_space(dataset)
    assert space.reverses_channels
    torch.testing.assert_close(space.mean.float(), torch.tensor(RGB['mean']))
    torch.testing.assert_close(space.std.float(), torch.tensor(RGB['std']))


def test_pipelines_that_do_not_or_not_always():
    assert pipeline_space(dict(pipeline=[dict(type='LoadImageFromFile'), PACK])).is_raw and pipeline_space(None).is_raw
    with pytest.raises(ValueError, match='RandomApply normalizes some images otherwise'):
        pipeline_space(dict(pipeline=[dict(type='RandomApply', transforms=[NORMALIZE])]))
    with pytest.raises(ValueError, match='its datasets are normalized differently'):
        pipeline_space(dict(datasets=[dict(pipeline=[NORMALIZE]), dict(pipeline=[PACK])]))


@pytest.mark.parametrize('load', [
    dict(type='LoadImageFromFile', imdecode_backend='tifffile'), dict(type='LoadSingleRSImageFromFile')])
@pytest.mark.parametrize('of_teacher', [False, True])
def test_loaders_that_give_red_first_are_seen(tmp_path, load, of_teacher):
    """With these, RGB is what no data preprocessor has to make of the images, and not what all have."""
    in_order = classifier()
    in_order.data_preprocessor.to_rgb = not in_order.data_preprocessor.to_rgb
    space = pipeline_space(dict(pipeline=[load, PACK]))
    assert space.reverses_channels and not space.normalizes
    pixels = classification_batch()
    loaded = dict(pixels, inputs=[image.flip(0) for image in pixels['inputs']])
    if of_teacher:
        Config(dict(model=in_order, train_dataloader=dict(dataset=dict(pipeline=[load, PACK])))).dump(
            tmp_path / 'teacher.py')
        mentor = dict(config=str(tmp_path / 'teacher.py'), checkpoint=None)
        model = distiller(classifier(), mentor, dict(a=match('backbone')))
        loaded, own = pixels, loaded
    else:
        model = distiller(in_order, teacher(classifier()), dict(a=match('backbone')))
        model.teachers[0].input.follow_pipeline(space)
        own = pixels
    data = model.data_preprocessor(copy.deepcopy(loaded), True)
    (made,) = model.teachers
    torch.testing.assert_close(made.input.images(data['inputs'], data['data_samples']),
                               made.model.data_preprocessor(own)['inputs'], rtol=1e-4, atol=1e-4)


def test_a_class_in_place_of_a_name():
    from mmcv.transforms import Normalize
    assert not pipeline_space(dict(pipeline=[dict(type=Normalize, **RGB)])).is_raw


def gray(mean=(100.0,), std=(50.0,)):
    model = classifier()
    model.data_preprocessor = dict(type='ClsDataPreprocessor', mean=list(mean), std=list(std), to_rgb=False)
    model.backbone.in_channels = 1
    return model


def test_images_of_other_channels_than_the_teacher_takes_are_refused():
    with pytest.raises(ConfigError, match=r'^model.teacher: takes images of 1 channel\(s\), and the student has '
                                          'images of 3; give a teacher of such images'):
        distiller(classifier(), teacher(gray()), dict(a=match('backbone')))
    model = distiller(gray(), teacher(classifier()), dict(a=match('backbone')))
    pixels = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    given = model.data_preprocessor(dict(inputs=list(pixels)), False)['inputs']
    own = model.teachers[0].model.data_preprocessor(dict(inputs=list(pixels.expand(2, 3, 8, 8))), False)['inputs']
    torch.testing.assert_close(model.teachers[0].input.images(given), own)


def distilled(pipeline=None, **options):
    """A student that normalizes in its pipeline, if it is to be seen, and a teacher that does in its preprocessor."""
    model = distiller(raw_classifier(), teacher(classifier(16), **options), dict(a=match('backbone')))
    if pipeline is not None:
        model.teachers[0].input.follow_pipeline(pipeline_space(dict(pipeline=pipeline)))
    return model


@pytest.mark.parametrize('stated', [True, False])
def test_a_student_that_normalizes_in_its_pipeline(stated):
    model = distilled(student_input=dict(**RGB, channel_order='rgb')) if stated else distilled([NORMALIZE, PACK])
    raw = classification_batch()
    data = model.data_preprocessor(normalized(copy.deepcopy(raw)), True)
    (made,) = model.teachers
    torch.testing.assert_close(made.input.convert(data['inputs'], data['data_samples']),
                               made.model.data_preprocessor(raw)['inputs'], rtol=1e-4, atol=1e-4)
    assert losses_of(model, normalized(classification_batch()))['a.loss_0'].isfinite()


@pytest.mark.parametrize('student', [raw_classifier, classifier])
def test_out_of_sight_the_first_batch_shows_it(student):
    """Normalized in the pipeline, and perhaps once more in the preprocessor."""
    model = distiller(student(), teacher(classifier(16)), dict(a=match('backbone')))
    with pytest.raises(ConfigError, match=r'^model.teacher: .*the first one has values from .*no pixels from 0 to 255.*'
                                          r'model.teacher.student_input=dict\(mean'):
        losses_of(model, normalized(classification_batch()))
    losses_of(model, classification_batch())  # looked at once


@pytest.mark.parametrize('change, seen', [
    (lambda p: p, None), (lambda p: p * 0 + 17, None), (lambda p: (p + 0.3).clamp(0, 255), None),
    (lambda p: p * 1.5 - 40, None), (lambda p: p / 255, 'from 0.0 to 1.0'), (lambda p: p - 116, 'no pixels'),
    (lambda p: (p - 116) / 57, 'from -2.0'), (lambda p: p / 127.5 - 1, 'from -1.0 to 1.0'),
    (lambda p: p * 257, 'Images of 16 bits have such values: divide mean and std of the student by 257')])
def test_values_that_speak_against_raw_pixels(change, seen):
    found = contradiction([change(image.float()) for image in images((64, 64), (40, 64))], RAW)
    assert found is None if seen is None else seen in found


def test_a_dark_batch_is_no_contradiction():
    assert contradiction([torch.randint(0, 6, (3, 32, 32)).float()], RAW) is None


class OwnDefaults(nn.Module):
    """As mmpretrain's wrappers of timm and Hugging Face: what they are given must be a dict."""

    def __new__(cls, data_preprocessor=None, **options):
        data_preprocessor = {} if data_preprocessor is None else data_preprocessor
        data_preprocessor.setdefault('type', 'mmpretrain.ClsDataPreprocessor')
        model = classifier()
        model.data_preprocessor = data_preprocessor
        return build(model)


def test_a_semi_supervised_detector_as_teacher():
    inner = detector()
    branches = dict(type='mmdet.MultiBranchDataPreprocessor', data_preprocessor=inner.pop('data_preprocessor'))
    soft = dict(type='mmdet.SoftTeacher', detector=inner, data_preprocessor=branches, semi_train_cfg=dict(),
                semi_test_cfg=dict(predict_on='teacher'))
    student = detector()
    student.data_preprocessor = dict(type='DetDataPreprocessor')
    model = distiller(student, teacher(soft), dict(a=match(dict(student='neck', teacher='teacher.neck'))))
    batch = detection_batch()
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    (made,) = model.teachers
    expected = made.model.data_preprocessor(batch, False)['inputs']
    torch.testing.assert_close(made.input.convert(data['inputs'], data['data_samples']), expected, rtol=1e-4, atol=1e-4)
    assert losses_of(model, detection_batch())['a.loss_0'].isfinite()


def test_models_that_take_a_preprocessor_as_a_dict_only():
    root.MODELS.register_module(name='OwnDefaults', module=OwnDefaults, force=True)
    student = build(classifier()).data_preprocessor
    made = Teacher(model=dict(type='mmengine.OwnDefaults'), checkpoint=None, student_preprocessor=student)
    assert made.input.convert.is_identity and torch.equal(made.model.data_preprocessor.mean, student.mean)


def test_an_inline_timm_classifier():
    pytest.importorskip('timm')
    student = build(classifier()).data_preprocessor
    made = Teacher(model=dict(type='mmpretrain.TimmClassifier', model_name='resnet18', pretrained=False),
                   checkpoint=None, student_preprocessor=student)
    assert made.input.convert.is_identity


@pytest.mark.parametrize('network', [
    dict(type='mmpretrain.TimmClassifier', model_name='vit_tiny_patch16_224', depth=1, pretrained=False),
    dict(type='mmpretrain.ImageClassifier',
         backbone=dict(type='TIMMBackbone', model_name='resnet18', features_only=True, pretrained=False))])
@pytest.mark.parametrize('mean', [[127.5] * 3, RGB['mean'], [1.0, 2.0, 3.0]])
def test_a_network_of_timm_without_a_preprocessor_whose_weights_are_of_other_images(network, mean, log):
    timm = pytest.importorskip('timm')
    model = classifier()
    std = [127.5] * 3 if mean == [127.5] * 3 else RGB['std']
    model.data_preprocessor = dict(type='ClsDataPreprocessor', mean=mean, std=std, to_rgb=True)
    Teacher(model=copy.deepcopy(network), checkpoint=None, student_preprocessor=build(model).data_preprocessor)
    name = network.get('model_name') or network['backbone']['model_name']
    own = [255 * value for value in timm.get_pretrained_cfg(name).mean]
    assert said(log, 'has no data_preprocessor', str(mean))
    assert said(log, f'model.teacher.input=dict(mean={own}') != (own == pytest.approx(mean))


def test_a_teacher_whose_config_normalizes_in_its_pipeline(tmp_path):
    from mmengine.config import Config
    model = raw_classifier()
    loader = dict(dataset=dict(type='CustomDataset', pipeline=[NORMALIZE, PACK]))
    Config(dict(default_scope='mmpretrain', model=model, val_dataloader=loader)).dump(tmp_path / 'a.py')
    student = build(classifier()).data_preprocessor
    made = Teacher(str(tmp_path / 'a.py'), checkpoint=None, student_preprocessor=student)
    assert made.input.convert.is_identity
    model.data_preprocessor = dict(type='ClsDataPreprocessor', **RGB)
    Config(dict(default_scope='mmpretrain', model=model, val_dataloader=loader)).dump(tmp_path / 'b.py')
    with pytest.raises(ConfigError, match='its pipeline and its data preprocessor both normalize'):
        Teacher(str(tmp_path / 'b.py'), checkpoint=None, student_preprocessor=student)


# --- the check before training ---------------------------------------------------------------


@pytest.fixture(scope='module')
def noise(tmp_path_factory):
    import mmcv
    import numpy as np
    folder, draw = tmp_path_factory.mktemp('noise'), np.random.default_rng(0)
    for name in ('a', 'b'):
        for index in range(10):
            mmcv.imwrite(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8), str(folder / name / f'{index}.png'))
    return folder


def loader(folder, *steps):
    return dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(
        type='CustomDataset', data_root=str(folder), pipeline=[dict(type='LoadImageFromFile'), *steps, PACK]))


def findings(folder, tmp_path, student, steps, **options):
    from mmengine.config import Config

    from mmfeatdistill.checks.preflight import preflight
    Config(dict(default_scope='mmpretrain', model=classifier(), val_dataloader=loader(folder))).dump(tmp_path / 'a.py')
    model = dict(type='mmfeatdistill.FeatureDistiller', student=student, objectives=dict(a=match('backbone')),
                 teacher=dict(config=str(tmp_path / 'a.py'), checkpoint=None, **options))
    shown = preflight(Config(dict(
        default_scope='mmpretrain', model=model, train_dataloader=loader(folder, *steps),
        val_dataloader=loader(folder, *steps), val_evaluator=dict(type='Accuracy', topk=(1,)))), 10)
    return shown, [finding for finding in shown.teachers[0].findings if 'In training its input' in finding.text]


def test_the_check_feeds_what_training_feeds(noise, tmp_path):
    shown, [found] = findings(noise, tmp_path, raw_classifier(), [NORMALIZE])
    assert found.level == 'ok', found.text
    assert [row.mean for row in shown.inputs] == ['123.675, 116.28, 103.53'] * 2
    assert [row.order for row in shown.inputs] == ['RGB', 'RGB'] and shown.inputs[1].converted == 'no'


def test_the_check_finds_images_that_the_teacher_was_not_trained_for(noise, tmp_path):
    """What is stated is wrong: they are normalized."""
    raw = dict(mean=[0.0], std=[1.0], channel_order='bgr')
    _, [found] = findings(noise, tmp_path, raw_classifier(), [NORMALIZE], student_input=raw)
    assert found.level == 'error' and 'model.teacher.student_input=dict(mean' in found.text, found.text
