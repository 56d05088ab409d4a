"""A distilled student in what comes after the training: the libraries' inferencers, ONNX, and eight bits."""
import mmcv
import numpy as np
import onnxruntime
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmengine.config import Config
from mmpretrain import ImageClassificationInferencer, get_model
from mmseg.apis import MMSegInferencer, inference_model, init_model
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.zoo.configs import build_model
from tests.helpers.runs import DISTILLED, small, train

pytestmark = pytest.mark.slow
TASKS = ('classification', 'faster_rcnn', 'pspnet')
SIZES = dict(classification=(64, 64), faster_rcnn=(128, 160), pspnet=(128, 128))


@pytest.fixture(scope='module')
def trained(digits, tmp_path_factory):
    """By task: the student's config, that of the distillation, the checkpoint, and the trained model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(digits)
        yield {task: _train(task, tmp_path_factory.mktemp(task)) for task in TASKS}


def _train(task, folder):
    model = train(small(DISTILLED[task], folder, train_cfg__max_epochs=1)).model
    (student,), (distillation,) = (folder.glob(name) for name in ('*_student.py', '*digits.py'))
    return str(student), str(distillation), str(folder / 'epoch_1.pth'), model


@pytest.fixture(scope='module')
def picture(tmp_path_factory):
    file = tmp_path_factory.mktemp('picture') / 'picture.png'
    mmcv.imwrite(np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8), str(file))
    return str(file)


def scores(task, config, checkpoint, picture):
    """What the library's inferencer says."""
    if task == 'classification':
        return ImageClassificationInferencer(config, pretrained=checkpoint, device='cpu')(picture)[0]['pred_scores']
    if task == 'faster_rcnn':
        inferencer = DetInferencer(config, checkpoint, device='cpu', show_progress=False)
        return inferencer(picture, no_save_vis=True)['predictions'][0]['scores']
    return MMSegInferencer(config, checkpoint, device='cpu')(picture)['predictions']


@pytest.mark.parametrize('task', TASKS)
def test_inferencers_take_the_student_and_the_distillation(trained, picture, task):
    student, distillation, checkpoint, _ = trained[task]
    alone, distilled = (scores(task, config, checkpoint, picture) for config in (student, distillation))
    assert len(alone) and np.array_equal(alone, distilled)


def test_functions_take_the_student(trained, picture):
    student, _, checkpoint, _ = trained['classification']
    found = ImageClassificationInferencer(get_model(student, pretrained=checkpoint, device='cpu'))(picture)
    assert np.array_equal(found[0]['pred_scores'], scores('classification', student, checkpoint, picture))
    student, _, checkpoint, model = trained['faster_rcnn']
    loaded = init_detector(student, checkpoint, device='cpu')
    trained_tensors = model.state_dict()
    assert all(torch.equal(value, trained_tensors[name]) for name, value in loaded.state_dict().items())
    assert inference_detector(loaded, picture).pred_instances.scores.tolist() == pytest.approx(
        scores('faster_rcnn', student, checkpoint, picture))
    student, _, checkpoint, _ = trained['pspnet']
    found = inference_model(init_model(student, checkpoint, device='cpu'), picture).pred_sem_seg.data[0]
    assert np.array_equal(found, scores('pspnet', student, checkpoint, picture))


def test_a_function_that_changes_the_config_names_the_students(trained):
    _, distillation, checkpoint, _ = trained['pspnet']
    with pytest.raises(ConfigError, match='_student.py'):
        init_model(distillation, checkpoint, device='cpu')


def network(task, student, checkpoint):
    """Of a detector the part without loops over boxes."""
    model = build_model(Config.fromfile(student)).eval()
    model.load_state_dict(torch.load(checkpoint, weights_only=False)['state_dict'], strict=True)
    return model if task != 'faster_rcnn' else torch.nn.Sequential(model.backbone, model.neck, model.rpn_head).eval()


def as_list(output):
    if isinstance(output, torch.Tensor):
        return [output]
    return [tensor for part in output for tensor in as_list(part)]


@pytest.fixture(scope='module')
def exported(trained, tmp_path_factory):
    """By task: an ONNX file, an input, and what torch makes of it."""
    found = {}
    for task in TASKS:
        student, _, checkpoint, _ = trained[task]
        file = str(tmp_path_factory.mktemp('onnx') / 'student.onnx')
        images = torch.randn(2, 3, *SIZES[task], generator=torch.Generator().manual_seed(0))
        model = network(task, student, checkpoint)
        torch.onnx.export(model, (images,), file, dynamo=True, input_names=['images'], verbose=False)
        with torch.no_grad():
            found[task] = file, images.numpy(), [tensor.numpy() for tensor in as_list(model(images))]
    return found


@pytest.mark.parametrize('task', TASKS)
def test_onnx_gives_what_torch_gives(exported, task):
    file, images, expected = exported[task]
    found = onnxruntime.InferenceSession(file).run(None, dict(images=images))
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, atol=1e-4, rtol=1e-4)


class Images(CalibrationDataReader):
    """Some batches on which the ranges of the activations are measured."""

    def __init__(self, batches):
        self.batches = iter(batches)

    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else dict(images=batch)


@pytest.mark.parametrize('task', ['classification', 'pspnet'])
def test_eight_bits_stay_near(exported, tmp_path, task):
    file, images, (expected,) = exported[task]
    prepared, small_file = (str(tmp_path / name) for name in ('prepared.onnx', 'int8.onnx'))
    quant_pre_process(file, prepared)
    quantize_static(prepared, small_file, Images([images] * 4), per_channel=True)
    (found,) = onnxruntime.InferenceSession(small_file).run(None, dict(images=images))
    error = np.abs(found - expected).mean() / np.abs(expected).mean()
    assert 0 < error < 0.1
