import copy

import pytest
import torch
from mmengine import registry as root
from mmengine.model import BaseDataPreprocessor, ImgDataPreprocessor
from mmengine.structures import BaseDataElement

from mmfeatdistill.teacher.input_conversion import InputConversion, InputSpace
from tests.helpers.models import classification_batch, detection_batch, images, segmentation_batch

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
CAFFE = dict(mean=[103.53, 116.28, 123.675], std=[1., 1., 1.])
UNIT = dict(mean=[0., 0., 0.], std=[255., 255., 255.])
GRAY = dict(mean=[127.5], std=[127.5])

SIZES = ((40, 64), (64, 48), (50, 50))


def plain_batch(*sizes):
    return dict(inputs=images(*sizes), data_samples=[
        BaseDataElement(metainfo=dict(img_shape=size)) for size in sizes])


def mmengine(rgb, pad, **space):
    return ImgDataPreprocessor(bgr_to_rgb=rgb, pad_size_divisor=32, pad_value=pad, **space)


def mmdet(rgb, pad, **space):
    return root.MODELS.build(dict(type='mmdet.DetDataPreprocessor', bgr_to_rgb=rgb, pad_size_divisor=32,
                                  pad_value=pad, **space))


def mmseg(rgb, pad, **space):
    return root.MODELS.build(dict(type='mmseg.SegDataPreProcessor', bgr_to_rgb=rgb, size=(64, 64), pad_val=pad,
                                  **space))


def mmpretrain(rgb, pad, **space):
    return root.MODELS.build(dict(type='mmpretrain.ClsDataPreprocessor', to_rgb=rgb, pad_size_divisor=32,
                                  pad_value=pad, **space))


LIBRARIES = {'mmengine': (mmengine, plain_batch), 'mmdet': (mmdet, detection_batch),
             'mmseg': (mmseg, segmentation_batch), 'mmpretrain': (mmpretrain, classification_batch)}


def run(preprocessor, batch):
    return preprocessor(copy.deepcopy(batch), training=True)


def convert(student, teacher, batch):
    data = run(student, batch)
    convert = InputConversion(InputSpace.of(student), InputSpace.of(teacher))
    return convert(data['inputs'], data['data_samples']), data['inputs']


@pytest.mark.parametrize('library', LIBRARIES)
@pytest.mark.parametrize('student, teacher', [
    ((True, 0, IMAGENET), (False, 0, CAFFE)),
    ((False, 0, CAFFE), (True, 0, IMAGENET)),
    ((True, 0, IMAGENET), (False, 0, IMAGENET)),
    ((True, 0, UNIT), (True, 0, IMAGENET)),
    ((True, 0, IMAGENET), (True, 0, GRAY)),
    ((True, 0, GRAY), (False, 0, IMAGENET)),
    ((True, 0, IMAGENET), (True, 0, {})),
    ((False, 0, {}), (True, 0, IMAGENET)),
    ((True, 0, IMAGENET), (True, 114, UNIT)),
    ((True, 0, IMAGENET), (True, 7, IMAGENET)),
    ((True, 7, IMAGENET), (True, 7, CAFFE)),
], ids=str)
def test_the_teacher_sees_what_its_own_preprocessor_gives(library, student, teacher):
    """Images of different sizes, so that all of them are padded."""
    make, make_batch = LIBRARIES[library]
    batch = make_batch(*SIZES)
    student, teacher = (make(rgb, pad, **space) for rgb, pad, space in (student, teacher))
    converted, inputs = convert(student, teacher, batch)
    expected = run(teacher, batch)['inputs']
    assert inputs.shape == (3, 3, 64, 64)
    torch.testing.assert_close(converted, expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(inputs, run(student, batch)['inputs'], rtol=0, atol=0)


@pytest.mark.parametrize('student, teacher', [
    ('mmdet', 'mmpretrain'), ('mmseg', 'mmdet'), ('mmpretrain', 'mmseg'), ('mmengine', 'mmdet')])
def test_across_libraries(student, teacher):
    make, make_batch = LIBRARIES[student]
    batch = make_batch(*SIZES)
    converted, _ = convert(make(True, 0, **IMAGENET), LIBRARIES[teacher][0](False, 3, **CAFFE), batch)
    expected = run(make(False, 3, **CAFFE), batch)['inputs']
    torch.testing.assert_close(converted, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('library', LIBRARIES)
def test_equal_spaces_hand_the_batch_on(library):
    make, make_batch = LIBRARIES[library]
    converted, inputs = convert(make(True, 0, **IMAGENET), make(True, 0, **IMAGENET), make_batch(*SIZES))
    assert converted is inputs


def test_a_preprocessor_that_does_not_normalize():
    converted, inputs = convert(BaseDataPreprocessor(), BaseDataPreprocessor(),
                                dict(inputs=torch.rand(2, 3, 8, 8), data_samples=None))
    assert converted is inputs


@pytest.mark.parametrize('data_samples', [None, [], [BaseDataElement(), BaseDataElement()]])
def test_without_known_image_shapes_nothing_is_taken_for_padding(data_samples):
    convert = InputConversion(InputSpace.of(mmengine(True, 0, **IMAGENET)), InputSpace.of(mmengine(True, 0, **UNIT)))
    raw = torch.stack(images((8, 8), (8, 8))).float()
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in IMAGENET.values())
    torch.testing.assert_close(convert((raw - mean) / std, data_samples), raw / 255, rtol=1e-5, atol=1e-5)


def test_it_has_no_state():
    convert = InputConversion(InputSpace.of(mmengine(True, 0, **IMAGENET)), InputSpace.of(mmengine(True, 0, **UNIT)))
    assert not convert.state_dict() and not list(convert.parameters())


def test_an_outdated_img_shape_is_no_padding():
    """Wrapped torchvision transforms resize the image and leave its noted shape as it was."""
    from mmengine.structures import BaseDataElement

    from mmfeatdistill.teacher.input_conversion import InputConversion, InputSpace
    raw = InputSpace(torch.zeros(1), torch.ones(1), False, 0.0)
    halved = InputSpace(torch.zeros(1), torch.full((1,), 2.0), False, 7.0)
    images = torch.ones(1, 3, 8, 8)
    outdated = BaseDataElement(metainfo=dict(img_shape=(4, 4)))
    assert (InputConversion(raw, halved)(images, [outdated]) == 0.5).all()
    padded = BaseDataElement(metainfo=dict(img_shape=(4, 4), batch_input_shape=(8, 8)))
    converted = InputConversion(raw, halved)(images, [padded])
    assert (converted[..., :4, :4] == 0.5).all() and (converted == 7).sum() == 3 * (64 - 16)
