"""CrossKD: on small heads of mmdet, against the definition and against what it promises."""
import pytest
import torch
from mmengine.config import Config

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.losses import binary_divergence, quality_focal
from mmfeatdistill.objectives.dense_head import count_positives, levels_of
from tests.engine.test_runner import same_tensors, straight_and_resumed
from tests.helpers.dense import DENSE, dense_detector, towers
from tests.helpers.models import classifier, count_calls, detection_batch, detector, distiller, losses_of, teacher
from tests.helpers.runs import CONFIGS, detecting_digits

OWN = 'distiller.'


def crossed(name, student=None, mentor=None, taps=None, **options):
    model = distiller(student or dense_detector(name), teacher(mentor or dense_detector(name)),
                      dict(cross=dict(type='CrossHead', taps=taps or towers(name), **options)))
    model.init_weights()
    return model.train()


def added(losses):
    return {key.partition('.')[2]: value for key, value in losses.items() if key.startswith('cross.')}


def noisy(model):
    """Weights that matter: heads start with scores of 0.01 everywhere."""
    numbers = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=numbers)
    return model


def twin(name, **options):
    model = noisy(crossed(name, **options)).eval()
    model.teachers[0].model.load_state_dict(
        {key: value for key, value in model.state_dict().items() if not key.startswith(OWN)})
    return model


@pytest.mark.parametrize('name', DENSE)
def test_heads_of_mmdet(name):
    """A step of each: the gradient goes where it should, and the teacher is what it was."""
    model = crossed(name)
    mentor = model.teachers[0].model
    noisy(mentor)
    before = {key: value.clone() for key, value in mentor.state_dict().items()}
    modules = [id(module) for module in mentor.modules()]
    losses = added(losses_of(model, detection_batch()))
    assert sorted(losses) == ['loss_box', *['loss_centerness'] * ('fcos' in name or name == 'atss'), 'loss_class']
    assert all(value.isfinite() and value > 0 for value in losses.values())
    sum(losses.values()).backward()
    head = model.student.bbox_head
    for tower in (head.cls_convs, head.reg_convs):
        if name == 'rtmdet':
            assert all(conv.bn.weight.grad.any() for level in tower for conv in level)
        else:
            assert all(conv.conv.weight.grad.any() for conv in tower[:3]) and tower[3].conv.weight.grad is None
    behind = [key for key, value in head.named_parameters() if value.grad is None]
    assert any('cls' in key and 'convs' not in key for key in behind)
    assert all(next(part.parameters()).grad.any() for part in (model.neck, model.backbone))
    assert all(parameter.grad is None for parameter in mentor.parameters())
    assert [id(module) for module in mentor.modules()] == modules
    assert all(torch.equal(value, before[key]) for key, value in mentor.state_dict().items())
    assert 'get_targets' not in vars(head)


@pytest.mark.parametrize('name', DENSE)
def test_a_twin_has_nothing_to_learn(name):
    losses = added(losses_of(twin(name), detection_batch()))
    assert losses and all(value.abs() < 1e-6 for value in losses.values())


def test_a_student_in_training_mode_is_compared_in_the_units_of_prediction():
    """FCOS multiplies its boxes by the stride in eval mode only: in training mode too, a twin has no loss."""
    model = twin('fcos_normed')
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    assert model.student.bbox_head.training and not model.teachers[0].model.bbox_head.training
    assert all(value.abs() < 1e-6 for value in added(losses_of(model, detection_batch())).values())


@pytest.mark.parametrize('name', ['atss', 'gfl'])
def test_the_loss_is_the_sum_of_its_parts(name):
    """Computed again from the teacher's own layers, one by one."""
    from mmdet.structures.bbox import bbox_overlaps
    options = dict(class_weight=3.0, box_weight=0.5, centerness_weight=0.25)
    model = crossed(name, taps=towers(name, 1), **options)
    noisy(model), noisy(model.teachers[0].model)
    seen = []
    model.objectives['cross'].register_forward_pre_hook(lambda _, args: seen.append(args))
    batch = detection_batch()
    losses = added(losses_of(model, batch))
    (own, (theirs,)), = seen
    head = model.teachers[0].model.bbox_head
    layers = (head.gfl_cls, head.gfl_reg) if name == 'gfl' else (head.atss_cls, head.atss_reg)
    terms = dict(loss_class=0., loss_box=0., loss_centerness=0.)
    weights = 0.
    for level, scale in enumerate(head.scales):
        classes, boxes = (own[tap][level] for tap in towers(name, 1))
        for conv in (2, 3):
            classes, boxes = head.cls_convs[conv](classes), head.reg_convs[conv](boxes)
        cross = [layers[0](classes), scale(layers[1](boxes))]
        wanted = theirs['bbox_head'][level::5]
        weight = wanted[0].sigmoid().amax(1).flatten()
        weights += weight.sum()
        scores, rows = ([x.permute(0, 2, 3, 1).flatten(0, 2) for x in (cross[kind], wanted[kind])] for kind in range(2))
        terms['loss_class'] += quality_focal(*scores).sum()
        if name == 'gfl':
            p, q = (x.view(-1, 4, 17).softmax(2) for x in rows)
            distance = (q * (q / p).log()).sum(2).mean(1)
        else:
            prior = head.prior_generator.grid_priors(
                [x.shape[2:] for x in theirs['bbox_head'][:5]], device='cpu')[level]
            decoded = [head.bbox_coder.decode(prior.repeat(2, 1), x) for x in rows]
            distance = 1 - bbox_overlaps(*decoded, mode='giou', is_aligned=True)
            own_z, z = (x.flatten()[:, None] for x in (head.atss_centerness(boxes), wanted[2]))
            terms['loss_centerness'] += (weight * binary_divergence(own_z, z)).sum()
        terms['loss_box'] += (weight * distance).sum()
    data = model.data_preprocessor(batch, training=True)
    positives = count_positives(model.student.bbox_head, own['bbox_head'], data['data_samples'])
    assert 0 < positives < 100
    wanted = dict(loss_class=3 * terms['loss_class'] / positives, loss_box=0.5 * terms['loss_box'] / weights)
    if name == 'atss':
        wanted['loss_centerness'] = 0.25 * terms['loss_centerness'] / weights
    torch.testing.assert_close(losses, wanted)


@pytest.mark.parametrize('name', ['gfl', 'fcos', 'retinanet', 'rtmdet'])
def test_positives_are_those_of_the_student_s_own_loss(name, monkeypatch):
    model = crossed(name)
    head = model.student.bbox_head
    own, found = head.get_targets, []
    monkeypatch.setattr(head, 'get_targets', lambda *args, **kwargs: found.append(own(*args, **kwargs)) or found[-1])
    data = model.data_preprocessor(detection_batch(), training=True)
    outputs = head(model.extract_feat(data['inputs']))
    flat = [tensor for kind in outputs for tensor in kind]
    positives = count_positives(head, flat, data['data_samples'])
    head.loss_by_feat(*outputs, [sample.gt_instances for sample in data['data_samples']],
                      [sample.metainfo for sample in data['data_samples']])
    labels = found[-1][0 if 'fcos' in name or name == 'retinanet' else 1]
    assert positives == sum(int((of_level < 10).sum()) for of_level in labels) > 0
    for sample in data['data_samples']:
        sample.gt_instances = sample.gt_instances[:0]
    assert count_positives(head, flat, data['data_samples']) == 0


@pytest.mark.parametrize('name', ['gfl', 'fcos', 'retinanet'])
def test_images_without_boxes_and_a_batch_of_one(name):
    model = crossed(name)
    batch = detection_batch((64, 64))
    batch['data_samples'][0].gt_instances = batch['data_samples'][0].gt_instances[:0]
    losses = added(losses_of(model, batch))
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    assert next(model.student.bbox_head.cls_convs[0].parameters()).grad.isfinite().all()


def test_heads_of_other_width_and_depth():
    model = crossed('gfl', mentor=dense_detector('gfl', channels=32, convs=2), taps=[
        dict(student=tap, teacher=tap.replace('2:', '0:')) for tap in towers('gfl')])
    losses = added(losses_of(model, detection_batch()))
    sum(losses.values()).backward()
    grads = [parameter.grad for parameter in model.distiller.parameters()]
    assert len(grads) == 4 and all(gradient.any() for gradient in grads)


def test_what_is_run():
    """Of the teacher's head, what stands behind the place, once more; nothing in front of it."""
    model = crossed('gfl')
    mentor = model.teachers[0].model
    calls = [count_calls(module) for module in (
        mentor.backbone.conv1, *(mentor.bbox_head.cls_convs[i] for i in (0, 2, 3)), mentor.bbox_head.gfl_reg,
        model.student.bbox_head.cls_convs[3])]
    losses_of(model, detection_batch())
    assert [len(of_module) for of_module in calls] == [1, 5, 5, 10, 10, 5]


def strides(model):
    model.bbox_head.anchor_generator.update(octave_base_scale=4)
    return model


def softmax(model):
    model.bbox_head.loss_cls = dict(type='CrossEntropyLoss', use_sigmoid=False)
    return model


@pytest.mark.parametrize('name, options, words', [
    ('gfl', dict(mentor=dense_detector('gfl', classes=12)), 'cross: the student\'s head has 10 classes and the '
                                                            'teacher\'s 12'),
    ('gfl', dict(mentor=dense_detector('retinanet')), 'AnchorGenerator with 1 a position and the strides 8, .*9 a'),
    ('gfl', dict(mentor=strides(dense_detector('gfl'))), 'cross: the anchors of the two heads differ'),
    ('retinanet', dict(student=softmax(dense_detector('retinanet'))), "student's RetinaHead scores .* by a softmax"),
    ('gfl', dict(taps=['bbox_head.cls_convs.2:each']), "cross.taps: the teacher's head also depends on what runs"),
    ('gfl', dict(taps=['bbox_head.cls_convs.2', 'bbox_head.reg_convs.2']), "taps: .*tap each call, as in "),
    ('gfl', dict(taps=['bbox_head.gfl_cls:each', 'bbox_head.gfl_reg:each']), "'bbox_head.gfl_cls' is no part of a"),
    ('gfl', dict(taps=['neck', *towers('gfl')]), "taps: expected convolutions inside of one head"),
    ('gfl', dict(weight=3), 'cross.weight: there is no such option')])
def test_what_cannot_work_is_refused_when_it_is_built(name, options, words):
    with pytest.raises(ConfigError, match=words):
        crossed(name, **options)


@pytest.mark.parametrize('make, words', [
    (lambda: detector(), "no module 'bbox_head"), (lambda: classifier(), "no module 'bbox_head")])
def test_other_students(make, words):
    with pytest.raises(ConfigError, match=words):
        crossed('gfl', student=make(), mentor=dense_detector('gfl'))


def test_outputs_in_another_form():
    head = crossed('gfl').student.bbox_head
    with pytest.raises(ValueError, match='GFLHead gives 2 outputs .* not scores of 10 classes'):
        levels_of(head, [torch.zeros(1, 10, 2, 2)] * 2)


def test_a_resumed_training_is_the_same_bit_for_bit(in_digits, tmp_path):
    model = Config.fromfile(CONFIGS.parent / 'tests' / 'distributed' / 'cross_head.py').model
    straight, resumed = straight_and_resumed(lambda name: detecting_digits(tmp_path / name, model), crash_at=3)
    assert straight.iter == resumed.iter == 4
    assert all(value.isfinite().all() for value in straight.model.parameters())
    assert same_tensors(straight.model.state_dict(), resumed.model.state_dict())
    assert any('connectors' in name for name in straight.model.state_dict())
