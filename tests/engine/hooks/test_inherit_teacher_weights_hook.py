"""Parts of a student that start from the teacher's weights, in real runners."""
import pytest
import torch

from mmfeatdistill.errors import ConfigError
from tests.helpers.runs import DISTILLED, small, train


def config(work_dir, *parts, **options):
    """A frozen classifier: what was inherited stays."""
    cfg = small(DISTILLED['classification'], work_dir, train_cfg__max_epochs=1, optim_wrapper__optimizer__lr=0.0,
                train_dataloader__num_batch_per_epoch=2, **options)
    cfg.optim_wrapper.optimizer.weight_decay = 0.0
    cfg.param_scheduler = []
    cfg.custom_hooks.append(dict(type='mmfeatdistill.InheritTeacherWeightsHook', parts=list(parts)))
    return cfg


def test_tensors_of_the_same_shape_are_taken_and_reported(in_digits, tmp_path, capsys):
    cfg = config(tmp_path, 'head', dict(student='backbone.conv1', teacher='backbone.conv1'), log_level='INFO')
    cfg.model.student.backbone.stem_channels = 32
    runner = train(cfg)
    student, teacher = runner.model.student, runner.model.teachers[0].model
    assert torch.equal(student.backbone.conv1.weight, teacher.backbone.conv1.weight)
    assert torch.equal(student.head.fc.bias, teacher.head.fc.bias)
    assert student.head.fc.weight.shape == (10, 64)
    assert teacher.head.fc.weight.shape == (10, 256)
    report = capsys.readouterr()
    assert "Inherited 1 tensors of 'head' from the teacher; left as they were: fc.weight ((10, 64), the teacher has " \
           '(10, 256))' in report.err + report.out


def test_a_resumed_training_is_left_alone(in_digits, tmp_path):
    first = train(config(tmp_path, 'head'))
    with torch.no_grad():
        first.model.student.head.fc.bias.fill_(7)
    first.save_checkpoint(str(tmp_path), 'changed.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'changed.pth'))
    cfg = config(tmp_path, 'head', resume=True)
    cfg.train_cfg.max_epochs = 2
    assert torch.equal(train(cfg).model.student.head.fc.bias, torch.full((10,), 7.))


@pytest.mark.parametrize('parts, words', [
    (['hed'], "parts: the student has no 'hed'. Did you mean 'head'"),
    ([dict(student='head', teacher='roi_head')], "parts: the teacher has no 'roi_head'"),
    (['backbone.conv1'], "nothing of 'backbone.conv1' has the same name and shape"),
    ([dict(student='head')], 'custom_hooks.InheritTeacherWeightsHook.parts: expected dict(student='),
    ([], "expected a list such as ['neck', 'roi_head']")])
def test_parts_that_cannot_be_inherited(in_digits, tmp_path, parts, words):
    with pytest.raises(ConfigError) as caught:
        train(config(tmp_path, *parts))
    assert words in str(caught.value)


def test_the_teacher_that_is_not_there(in_digits, tmp_path):
    cfg = config(tmp_path, 'head')
    cfg.custom_hooks[-1]['teacher'] = 1
    with pytest.raises(ConfigError, match='InheritTeacherWeightsHook.teacher: there is no teacher 1; the model has 1'):
        train(cfg)


def test_weights_that_are_not_the_files_any_more(in_digits, tmp_path):
    cfg = config(tmp_path, 'head')
    cfg.model.teacher.acceleration = dict(fuse_conv_bn=True)
    with pytest.raises(ConfigError, match='WeightsHook: the weights of the teacher are not those of its file'):
        train(cfg)
