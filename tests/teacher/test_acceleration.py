"""Cheaper teachers: the same features, and a refusal where an option does not apply."""
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.taps.tap import Place
from mmfeatdistill.teacher.conv_bn_fusion import fuse, fusible
from mmfeatdistill.teacher.teacher import Teacher
from tests.helpers.models import (
    build,
    classification_batch,
    classifier,
    count_calls,
    detection_batch,
    detector,
    distiller,
    losses_of,
    match,
    segmenter,
    teacher,
)

BATCHES = {classifier: classification_batch((64, 64), (64, 64)), detector: detection_batch((64, 64), (64, 64))}


@pytest.fixture(autouse=True)
def _nothing_compiled_yet():
    torch._dynamo.reset()


@torch.no_grad()
def as_trained(model: nn.Module) -> nn.Module:
    """BatchNorms with statistics and weights that an identity does not have."""
    generator = torch.Generator().manual_seed(0)
    for norm in (module for module in model.modules() if isinstance(module, _BatchNorm)):
        norm.running_mean.normal_(0, 0.2, generator=generator)
        norm.running_var.uniform_(0.5, 1.5, generator=generator)
        norm.weight.uniform_(0.5, 1.5, generator=generator)
        norm.bias.normal_(0, 0.2, generator=generator)
    return model


def read(make, tmp_path, tap, **acceleration):
    """The features of a teacher with such options, and the teacher."""
    path = tmp_path / 'teacher.pth'
    if not path.exists():
        torch.save(as_trained(build(make())).state_dict(), path)
    made = Teacher(model=make(), checkpoint=str(path), acceleration=acceleration,
                   student_preprocessor=build(make()).data_preprocessor)
    made.accelerate(made.attach([tap]))
    data = made.model.data_preprocessor(BATCHES[make], True)
    return made(data['inputs'], data['data_samples'])[tap], made


@pytest.mark.parametrize('make, tap', [(classifier, 'backbone'), (detector, 'neck'),
                                       (classifier, 'backbone.layer3:pre'),
                                       (classifier, 'backbone.layer2.1.bn1')])
@pytest.mark.parametrize('options, tolerance', [
    (dict(fuse_conv_bn=True), 1e-5), (dict(channels_last=True), 1e-5), (dict(dtype='bfloat16'), 5e-2),
    (dict(compile=dict(backend='eager')), 1e-6),
    (dict(fuse_conv_bn=True, channels_last=True, compile=dict(backend='eager')), 1e-5)], ids=str)
def test_the_features_stay_what_they_were(make, tap, options, tolerance, tmp_path):
    plain, _ = read(make, tmp_path, tap)
    fast, made = read(make, tmp_path, tap, **options)
    assert len(plain) == len(fast)
    for expected, given in zip(plain, fast):
        assert given.dtype == expected.dtype == torch.float32
        assert (given - expected).abs().max() <= tolerance * expected.abs().max()
        assert 'dtype' not in options or not torch.equal(given, expected)
    norms = sum(isinstance(module, _BatchNorm) for module in made.model.modules())
    assert (norms == 0) == ('fuse_conv_bn' in options)


def test_behind_the_last_tap_nothing_runs_in_a_compiled_teacher(tmp_path):
    _, made = read(detector, tmp_path, 'backbone.layer2', compile=dict(backend='eager'))
    calls = count_calls(made.model.backbone.layer3)
    data = made.model.data_preprocessor(BATCHES[detector], True)
    made(data['inputs'], data['data_samples'])
    assert not calls


class Net(nn.Module):
    """A convolution that a function reads next to its normalization."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.second, self.other = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.again = again

    def forward(self, x):
        x = self.first(x)
        y = self.second(self.norm(x).relu())
        return self.other(y) + (x if self.again else 0)


@pytest.mark.parametrize('again', [False, True])
def test_what_something_else_reads_is_not_folded(again):
    model, image = as_trained(Net(again).eval()), torch.randn(1, 3, 4, 4)
    with torch.no_grad():
        pairs, before = fusible(model, lambda: model(image)), model(image)
        fuse(model, pairs)
        assert [pair.conv for pair in pairs] == (['second'] if again else ['first', 'second'])
        torch.testing.assert_close(model(image), before)


def test_two_normalisations_of_one_convolution_are_not_folded():
    class Twice(Net):
        def forward(self, x):
            x = self.first(x)
            return self.norm(x) + self.other(x)

    model = Twice(False).eval()
    assert fusible(model, lambda: model(torch.zeros(1, 3, 4, 4))) == []


def test_a_module_that_runs_twice_is_not_folded():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).eval()
    assert fusible(net, lambda: net(net(torch.zeros(1, 3, 4, 4)))) == []


def test_what_is_read_is_not_folded():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).eval()
    for place, count in ((Place('0', False), 0), (Place('1', True), 0), (Place('1', False), 1), (Place('0', True), 1)):
        assert len(fusible(net, lambda: net(torch.zeros(1, 3, 4, 4)), [place])) == count


def test_margins_are_found_before_norms_are_folded():
    ofd = dict(ofd=dict(type='OFD', taps=['backbone.layer3:pre', 'backbone.layer4:pre']))
    plain, folded = (distiller(classifier(), teacher(classifier(16), acceleration=options), ofd)
                     for options in (None, dict(fuse_conv_bn=True)))
    for expected, given in zip(plain.objectives['ofd'].margins, folded.objectives['ofd'].margins):
        assert torch.equal(expected.value, given.value)
    losses_of(folded, BATCHES[classifier])


def test_a_distilled_step_with_a_low_precision_teacher_has_losses_in_full():
    model = distiller(teachers=teacher(detector(16, 32), acceleration=dict(dtype='bfloat16')))
    losses = losses_of(model, BATCHES[detector])
    assert losses['fpn.loss_0'].dtype == torch.float32
    assert model.to(torch.device('cpu')).teachers[0].model.backbone.conv1.weight.dtype == torch.bfloat16


@pytest.mark.parametrize('options, message', [
    (dict(fold=True), r"model\.teacher\.acceleration\.fold: there is no such option.*'fuse_conv_bn'"),
    (dict(fuse_conv_bn=1), r'acceleration\.fuse_conv_bn: expected True or False, got 1'),
    (dict(dtype='int8'), r"acceleration\.dtype: expected 'bfloat16' or 'float16' or None, got 'int8'"),
    (dict(side_stream='yes'), r"acceleration\.side_stream: expected True or False, got 'yes'"),
    (dict(compile='max'), r"acceleration\.compile: expected True, False or a dict .* got 'max'"),
    ('fuse_conv_bn',
     r"acceleration: expected a dict such as dict\(fuse_conv_bn=True\), 'auto' or None, got 'fuse_conv_bn'"),
    (dict(packed_for=[224, 224]), r'packed_for: expected the shape of a batch, such as \(16, 3, 224, 224\), got'),
    (dict(packed_for=[2, 3, 64, 64], dtype='bfloat16'), r"packed_for: .*leave dtype='bfloat16' or this out"),
])
def test_wrong_options_name_the_key(options, message):
    with pytest.raises(ConfigError, match=message):
        distiller(teachers=teacher(detector(16, 32), acceleration=options))


def test_it_is_refused_where_an_objective_runs_the_teacher_itself():
    fcfd = dict(fcfd=dict(type='FCFDBoxHead', taps=['neck']))
    with pytest.raises(ConfigError, match=r'model\.teacher\.acceleration: .*model\.objectives\.fcfd runs some'):
        distiller(teachers=teacher(detector(16, 16), acceleration=dict(fuse_conv_bn=True)), objectives=fcfd)
    distiller(teachers=teacher(detector(16, 16), acceleration=dict(channels_last=True)), objectives=fcfd)


def test_it_is_refused_where_the_teacher_normalises_by_the_batch():
    with pytest.raises(ConfigError, match='batch_statistics=True'):
        distiller(teachers=teacher(detector(16, 32), batch_statistics=True, acceleration=dict(dtype='bfloat16')))


def test_a_teacher_that_cannot_run_so_is_an_error():
    with pytest.raises(ConfigError, match=r'model\.teacher\.acceleration: the teacher does not run with 6 parts'):
        distiller(classifier(), teacher(classifier(16), acceleration=dict(compile=dict(backend=_refuse))),
                  dict(stage=match('backbone.layer4')))


def _refuse(*_):
    raise RuntimeError('no compiler here')


def test_segmenters_fold_their_decode_heads():
    model = distiller(segmenter(), teacher(segmenter(16), acceleration=dict(fuse_conv_bn=True)),
                      dict(logits=match('decode_head.conv_seg')))
    assert not any(isinstance(module, _BatchNorm) for module in model.teachers[0].model.modules())
