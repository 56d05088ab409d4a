"""What is true of a FeatureDistiller, against the stock student of the same config and seed."""
import copy

import pytest
import torch
from mmengine import registry as root
from mmengine.model import BaseModel, ExponentialMovingAverage, revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmfeatdistill.distillers import FeatureDistiller
from mmfeatdistill.errors import ConfigError
from tests.helpers.models import (
    build,
    classification_batch,
    classifier,
    convnext,
    count_calls,
    detection_batch,
    detector,
    distiller,
    last_stage,
    losses_of,
    match,
    segmentation_batch,
    segmenter,
    teacher,
    total,
    transformer,
)

TASKS = {'detection': (detector, detection_batch, 'neck'), 'segmentation': (segmenter, segmentation_batch, 'backbone'),
         'classification': (classifier, classification_batch, 'backbone')}


def small(student=None, **options):
    """A cheap one: classifiers, matched at the backbone."""
    return distiller(student or classifier(), options.get('teachers') or teacher(classifier(16)),
                     options.get('objectives') or dict(last=match('backbone')))


def seeded(seed, make):
    torch.manual_seed(seed)
    return make()


def pair(make=classifier, tap='backbone', objectives=None):
    """A stock student and a distiller with the same initial weights."""
    stock = seeded(3, lambda: build(make()))
    model = seeded(3, lambda: distiller(make(), teacher(make(16)), objectives or dict(match=match(tap))))
    return stock, model


def added(names):
    return [name for name in names if name.startswith('distiller.')]


def students(mapping):
    return {name: value for name, value in mapping.items() if not name.startswith('distiller.')}


# --- 1. it wears the student -----------------------------------------------------------------


@pytest.mark.parametrize('task', TASKS)
def test_names_are_the_students_own(task):
    make, _, tap = TASKS[task]
    stock, model = pair(make, tap)
    for listing in ('named_parameters', 'named_buffers', 'named_modules', 'named_children'):
        own = [name for name, _ in getattr(stock, listing)()]
        worn = [name for name, _ in getattr(model, listing)()]
        assert [name for name in worn if not f'{name}.'.startswith('distiller.')] == own
    own, worn = stock.state_dict(), model.state_dict()
    assert list(students(worn)) == list(own)
    assert added(worn) and all(name.startswith('distiller.0.connectors.') for name in added(worn))
    assert all(torch.equal(worn[name], own[name]) for name in own)


def test_parameters_are_shared_with_the_student_not_copied():
    model = small()
    for name, parameter in students(dict(model.named_parameters())).items():
        assert model.student.get_parameter(name) is parameter
    model.backbone.conv1.weight.data.fill_(2)
    assert (model.student.backbone.conv1.weight == 2).all()


@pytest.mark.parametrize('task', TASKS)
def test_its_weights_load_in_the_stock_student_and_back(task):
    make, _, tap = TASKS[task]
    stock, model = pair(make, tap)
    torch.manual_seed(9)
    model.init_weights()
    assert not any(stock.load_state_dict(students(model.state_dict())))
    missing, unexpected = model.load_state_dict(build(make()).state_dict(), strict=False)
    assert not unexpected and missing == added(model.state_dict())


def test_the_students_own_way_of_loading_is_used():
    """Single-stage detectors rename keys of old checkpoints; so must a distiller that wears one."""
    class Renaming(BaseModel):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.conv = nn.Conv2d(3, 4, 1)
            self.own = nn.Parameter(torch.zeros(1))
            self.register_buffer('count', torch.zeros(1))

        def _load_from_state_dict(self, state_dict, prefix, *args):
            if prefix + 'old' in state_dict:
                state_dict[prefix + 'own'] = state_dict.pop(prefix + 'old')
            super()._load_from_state_dict(state_dict, prefix, *args)

        def extract_feat(self, inputs):
            return self.conv(inputs)

        def forward(self, inputs, data_samples=None, mode='tensor'):
            feature = self.conv(inputs) + self.own
            return dict(loss=feature.mean()) if mode == 'loss' else feature

    student = Renaming()
    model = FeatureDistiller(student, teacher(classifier()),
                             dict(a=match(dict(student='conv', teacher='backbone'))))
    state_dict = model.state_dict()
    assert list(students(state_dict)) == ['own', 'count', 'conv.weight', 'conv.bias']
    state_dict['old'] = state_dict.pop('own') + 5
    state_dict['count'] += 2
    model.load_state_dict(state_dict)
    assert student.own == 5 and student.count == 2 and model.count == 2
    model.to(torch.float64)
    assert student.own.dtype == student.count.dtype == torch.float64 and student.own is model.own


def groups(model, cfg):
    """The options of every parameter, by name."""
    optimizer = build_optim_wrapper(model, copy.deepcopy(cfg)).optimizer
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for group in optimizer.param_groups:
        options = {key: value for key, value in group.items() if key not in ('params', 'param_names')}
        found.update({names[id(parameter)]: options for parameter in group['params']})
    return found


SGD = dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.01)


@pytest.mark.parametrize('make, wrapper', [
    (detector, dict()),
    (detector, dict(paramwise_cfg=dict(norm_decay_mult=0., bias_lr_mult=2., bias_decay_mult=0.))),
    (detector, dict(paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1), 'roi_head': dict(decay_mult=0.)}))),
    (segmenter, dict(paramwise_cfg=dict(custom_keys={'decode_head': dict(lr_mult=10.)}, norm_decay_mult=0.))),
    (transformer, dict(paramwise_cfg=dict(flat_decay_mult=0., custom_keys={'.cls_token': dict(decay_mult=0.0)}))),
    (transformer, dict(constructor='mmpretrain.LearningRateDecayOptimWrapperConstructor', paramwise_cfg=dict(
        layer_decay_rate=0.7, norm_decay_mult=0., custom_keys={'.pos_embed': dict(decay_mult=0.0)}))),
    (convnext, dict(constructor='mmdet.LearningRateDecayOptimizerConstructor', paramwise_cfg=dict(
        decay_rate=0.7, decay_type='layer_wise', num_layers=6))),
    (convnext, dict(constructor='mmseg.LearningRateDecayOptimizerConstructor', paramwise_cfg=dict(
        decay_rate=0.7, decay_type='stage_wise', num_layers=6))),
], ids=lambda value: str(value.get('paramwise_cfg', 'plain'))[:60] if isinstance(value, dict) else value.__name__)
def test_optimiser_groups_are_the_stock_students(make, wrapper):
    wrapper = dict(type='OptimWrapper', optimizer=SGD, **wrapper)
    stock = build(make())
    model = distiller(make(), teacher(classifier()), dict(a=match(last_stage(make))))
    expected, found = groups(stock, wrapper), groups(model, wrapper)
    if len(wrapper) > 2:
        assert len({str(options) for options in expected.values()}) > 1, 'nothing is set apart'
    assert students(found) == expected
    assert sorted(added(found)) == sorted(name for name, _ in model.named_parameters() if name.startswith('distiller'))


def test_custom_keys_reach_the_connectors_too():
    model = small()
    found = groups(model, dict(optimizer=SGD, paramwise_cfg=dict(custom_keys={'distiller': dict(lr_mult=5.)})))
    assert {name for name, options in found.items() if options['lr'] == 0.5} == set(added(found))


def test_sync_batchnorm_conversions():
    model = distiller(classifier(), teacher(classifier(16)),
                      dict(a=dict(match('backbone'), connector=dict(type='ConvBN')), b=match('backbone.bn1')))
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    names = list(model.state_dict())
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert converted is model
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in model.modules()) == norms
    assert isinstance(model.student.backbone.bn1, nn.SyncBatchNorm), 'the student runs what was converted'
    assert isinstance(model.teachers[0].model.backbone.bn1, nn.BatchNorm2d)

    reverted = revert_sync_batchnorm(model)
    assert reverted is model and not any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
    assert list(model.state_dict()) == names
    losses = losses_of(model.train(), classification_batch())
    assert losses['a.loss_0'].isfinite() and losses['b.loss_0'].isfinite()


def test_a_student_with_sync_batchnorm_is_one_config_away():
    cfg = segmenter()
    cfg.backbone.norm_cfg = dict(type='SyncBN', requires_grad=True)
    model = distiller(cfg, teacher(segmenter(16)), dict(a=match('backbone')))
    assert total(revert_sync_batchnorm(model).train(), segmentation_batch()).isfinite()


def test_averaged_models_hold_the_student_and_no_teacher():
    stock, model = pair()
    own, ema = ExponentialMovingAverage(stock, momentum=0.1), ExponentialMovingAverage(model, momentum=0.1)
    with torch.no_grad():
        for parameter, twin in zip(stock.parameters(), model.parameters()):
            parameter.add_(1)
            twin.add_(1)
    own.update_parameters(stock), ema.update_parameters(model)  # copies
    with torch.no_grad():
        for parameter, twin in zip(stock.parameters(), model.parameters()):
            parameter.mul_(3)
            twin.mul_(3)
    own.update_parameters(stock), ema.update_parameters(model)  # averages
    expected, found = own.state_dict(), ema.state_dict()
    assert {name for name in found if not name.startswith('module.distiller.')} == set(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert ema.module.teachers[0].model is model.teachers[0].model
    assert ema.module.student.backbone is ema.module.backbone is not model.backbone
    batch = ema.module.data_preprocessor(classification_batch())
    assert torch.equal(ema(**batch, mode='tensor')[0], own(**batch, mode='tensor')[0])


def test_methods_and_attributes_of_the_student():
    model = distiller()
    assert model.with_neck and model.with_roi_head and model.with_rpn
    assert model.extract_feat(torch.randn(1, 3, 64, 64))[0].shape == (1, 16, 16, 16)
    assert model.neck is model.student.neck and model.data_preprocessor is model.student.data_preprocessor
    with pytest.raises(AttributeError, match='nonsense'):
        getattr(model, 'nonsense')  # noqa: B009
    assert not hasattr(model, 'get_layer_depth')
    assert distiller(transformer(), teacher(classifier()), dict(a=match(last_stage(transformer)))).get_layer_depth(
        'backbone.cls_token') == (0, 4)


def test_training_mode_is_the_students_affair():
    """Backbones override train() to keep stages frozen."""
    cfg = detector()
    cfg.backbone.update(frozen_stages=1, norm_eval=True)
    model = distiller(cfg).train()
    assert model.training and model.student.training and model.neck.training and model.distiller.training
    assert not model.backbone.bn1.training
    assert not model.backbone.layer1[0].conv1.weight.requires_grad
    assert not any(module.training for module in [*model.eval().modules(), model.student])
    assert model.train(False) is model


def test_the_runners_data_preprocessor_is_for_a_student_without_one():
    cfg = classifier()
    own = cfg.pop('data_preprocessor')
    model = FeatureDistiller(cfg, teacher(classifier()), dict(a=match('backbone')), data_preprocessor=own)
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx(own['mean'])
    other = dict(type='ClsDataPreprocessor', mean=[1., 2., 3.], std=[1., 1., 1.])
    model = FeatureDistiller(classifier(), teacher(classifier()), dict(a=match('backbone')), data_preprocessor=other)
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx(own['mean'])


def test_built_from_the_registry():
    cfg = dict(type='mmfeatdistill.FeatureDistiller', student=classifier(), teacher=teacher(classifier(16)),
               objectives=dict(a=match('backbone')))
    before = copy.deepcopy(cfg)
    assert isinstance(root.MODELS.build(cfg), FeatureDistiller)
    assert cfg == before


# --- building leaves no trace ----------------------------------------------------------------


@pytest.mark.parametrize('make', [detector, segmenter, classifier, transformer, convnext])
def test_initial_weights_and_random_state_are_those_without_distillation(make):
    """ConvNeXt's init_cfg stands at the top of the model and means every convolution below."""
    def run(built):
        built.init_weights()
        return built, torch.get_rng_state()

    stock, state = seeded(5, lambda: run(build(make())))
    model, distilled_state = seeded(5, lambda: run(distiller(
        make(), teacher(classifier(16)), dict(a=match(last_stage(make))))))
    for name, value in stock.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert torch.equal(state, distilled_state)


def test_an_objective_may_draw_random_numbers_when_it_initialises_itself():
    model = small()
    drawn = []
    model.objectives['last'].init_weights = lambda: drawn.append(torch.rand(1))
    expected = seeded(5, lambda: build(classifier()).init_weights() or torch.get_rng_state())
    found = seeded(5, lambda: build(classifier()) and model.init_weights() or torch.get_rng_state())
    assert drawn and torch.equal(expected, found)


def test_connectors_keep_the_initialisation_that_they_state():
    model = distiller(convnext(), teacher(classifier(16)), dict(a=dict(
        match(last_stage(convnext)), connector=dict(type='ConvBN'))))
    before = {name: value.clone() for name, value in model.distiller.state_dict().items()}
    model.init_weights()
    for name, value in model.distiller.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_student_is_untouched_by_the_dry_run():
    stock, model = pair(detector, 'neck')
    for name, value in stock.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert [m.training for m in stock.modules()] == [m.training for m in model.student.modules()
                                                     if m not in set(model.distiller.modules())]
    assert all('forward' not in vars(m) for m in [*model.modules(), *model.teachers[0].model.modules()])


# --- losses ----------------------------------------------------------------------------------


def scalars(losses):
    return {name: float(sum(value) if isinstance(value, list) else value) for name, value in losses.items()}


@pytest.mark.parametrize('task', TASKS)
def test_the_students_losses_keep_names_and_values(task):
    make, make_batch, tap = TASKS[task]
    stock, model = pair(make, tap)
    batch = make_batch()
    expected = seeded(0, lambda: scalars(losses_of(stock.train(), batch)))
    found = seeded(0, lambda: scalars(losses_of(model.train(), batch)))
    assert {name: value for name, value in found.items() if '.' not in name or name in expected} == expected
    count = 5 if task == 'detection' else 4 if task == 'segmentation' else 1
    assert set(found) - set(expected) == {f'match.loss_{i}' for i in range(count)}
    for name, value in stock.named_buffers():
        assert torch.equal(model.get_buffer(name), value), f'{name}: statistics after the step'


def test_losses_are_what_connector_and_loss_make_of_the_two_features():
    model = distiller(classifier(), teacher(classifier(16)), dict(a=match('backbone', weight=0.25)))
    data = model.data_preprocessor(classification_batch(), training=True)
    model.eval()  # so that features can be computed again
    loss = model(**data, mode='loss')['a.loss_0']
    with torch.no_grad():
        (student,) = model.student.extract_feat(data['inputs'], stage='backbone')
        (target,) = model.teachers[0].model.extract_feat(data['inputs'], stage='backbone')
        expected = 0.25 * (model.objectives['a'].connectors[0](student) - target).square().sum() / 2
    torch.testing.assert_close(loss, expected)


def test_gradients_are_those_of_the_sum():
    """Of the student's loss alone, plus those of the objective alone."""
    _, model = pair(objectives=dict(a=match('backbone', weight=0.1)))
    model.eval()
    data = model.data_preprocessor(classification_batch(), training=True)
    weight = model.backbone.conv1.weight
    losses = model(**data, mode='loss')
    both, = torch.autograd.grad(model.parse_losses(losses)[0], weight, retain_graph=True)
    own, = torch.autograd.grad(losses['loss'], weight, retain_graph=True)
    distilled, = torch.autograd.grad(losses['a.loss_0'], weight)
    assert distilled.abs().sum() > 0
    torch.testing.assert_close(both, own + distilled)


def test_every_parameter_gets_a_gradient():
    model = distiller(objectives=dict(fpn=match(), stage=match('backbone.layer1.0.bn2')))
    model.init_weights()
    total(model.train(), detection_batch()).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_a_training_step_learns():
    model = small()
    model.init_weights()
    model.train()
    wrapper = build_optim_wrapper(model, dict(optimizer=dict(type='AdamW', lr=0.01)))
    batch = classification_batch()
    history = [float(model.train_step(copy.deepcopy(batch), wrapper)['last.loss_0']) for _ in range(8)]
    assert history[-1] < 0.9 * history[0]


@pytest.mark.parametrize('weight', [0.5, 2.0])
def test_the_weight_of_a_schedule(weight):
    model = small(objectives=dict(a=match('backbone'), b=match('backbone.bn1')))
    batch = classification_batch()
    before = scalars(losses_of(model.eval(), batch))
    model.objectives['a'].weight = weight
    after = scalars(losses_of(model, batch))
    assert after['a.loss_0'] == pytest.approx(weight * before['a.loss_0'])
    assert after['b.loss_0'] == before['b.loss_0']


def test_objectives_that_are_off_cost_nothing():
    model = small(objectives=dict(a=match('backbone'), b=match('backbone.bn1')))
    batch = classification_batch()
    runs = {name: count_calls(objective) for name, objective in model.objectives.items()}
    teacher_runs = count_calls(model.teachers[0].model.backbone.conv1)
    model.objectives['a'].weight = 0
    assert set(losses_of(model, batch)) == {'loss', 'b.loss_0'}
    assert (len(runs['a']), len(runs['b']), len(teacher_runs)) == (0, 1, 1)
    model.objectives['b'].weight = 0.0
    assert set(losses_of(model, batch)) == {'loss'}
    assert (len(runs['a']), len(runs['b']), len(teacher_runs)) == (0, 1, 1), 'all off: no teacher either'
    model.objectives['a'].weight = 1
    assert set(losses_of(model, batch)) == {'loss', 'a.loss_0'}
    assert (len(runs['a']), len(runs['b']), len(teacher_runs)) == (1, 1, 2)


# --- 3. teachers run once, and only those that are read --------------------------------------


def test_once_per_batch_however_many_objectives():
    model = distiller(objectives=dict(a=match(), b=match('neck[1:3]'), c=match('backbone.layer2')))
    calls = count_calls(model.teachers[0].model.backbone.conv1)
    student_calls = count_calls(model.backbone.conv1)
    losses = losses_of(model, detection_batch())
    assert len(calls) == len(student_calls) == 1
    assert {name for name in losses if '.' in name} == {
        *(f'a.loss_{i}' for i in range(5)), 'b.loss_0', 'b.loss_1', 'c.loss_0'}


def test_two_teachers():
    model = distiller(classifier(), [teacher(classifier(16)), teacher(classifier(24))], dict(
        both=match('backbone'), second=match('backbone.bn1', teacher=1)))
    wide = [[tuple(c[2].weight.shape[:2]) for c in o.connectors] for o in model.objectives.values()]
    assert wide == [[(128, 128), (192, 192)], [(24, 24)]]
    calls = [count_calls(built.model.backbone.conv1) for built in model.teachers]
    losses = losses_of(model, classification_batch())
    assert {name for name in losses if '.' in name} == {'both.loss_0', 'both.loss_1', 'second.loss_0'}
    assert [len(c) for c in calls] == [1, 1]

    model.objectives['both'].weight = 0
    losses = losses_of(model, classification_batch())
    assert [len(c) for c in calls] == [1, 2], 'the first is read by no objective that is on'


def test_the_second_of_two_teachers_is_the_second():
    zero = teacher(classifier(16))
    one = teacher(classifier(16))
    model = distiller(classifier(), [zero, one], dict(a=match('backbone', teacher=1), b=match('backbone', teacher=0)))
    for index, built in enumerate(model.teachers):
        for parameter in built.model.parameters():
            parameter.fill_(float(index) * 1e-3)
    data = model.data_preprocessor(classification_batch(), training=True)
    seen = {}
    for name, objective in model.objectives.items():
        objective.loss.register_forward_hook(lambda m, args, out, name=name: seen.update({name: args[1]}))
    model(**data, mode='loss')
    assert not seen['b'].any() and torch.equal(
        seen['a'], model.teachers[1](data['inputs'], data['data_samples'])['backbone'][0])


def test_none_removes_an_inherited_objective():
    model = small(objectives=dict(a=match('backbone'), b=None))
    assert list(model.objectives) == ['a']
    assert set(losses_of(model, classification_batch())) == {'loss', 'a.loss_0'}


# --- 7. outside training it is the student ---------------------------------------------------


def flat(value):
    """All tensors of predictions, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in flat(item)]
    if hasattr(value, 'values') and hasattr(value, 'keys'):
        return [tensor for _, item in sorted(value.items(), key=lambda kv: str(kv[0])) for tensor in flat(item)]
    return []


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('how', ['predict', 'tensor', 'val_step', 'test_step'])
def test_inference_is_the_students_to_the_last_bit(task, how):
    make, make_batch, tap = TASKS[task]
    stock, model = pair(make, tap)
    batch = make_batch()
    calls = count_calls(model.teachers[0].model.backbone.layer1)
    objectives = [count_calls(objective) for objective in model.objectives.values()]

    @torch.no_grad()
    def run(built):
        built.eval()
        data = copy.deepcopy(batch)
        if how.endswith('step'):
            return getattr(built, how)(data)
        return built(**built.data_preprocessor(data), mode=how)

    expected, found = flat(run(stock)), flat(run(model))
    assert expected and len(expected) == len(found)
    assert all(torch.equal(a, b) for a, b in zip(expected, found))
    assert not calls and not any(objectives), 'a teacher or an objective ran'
    losses_of(model, batch)
    assert calls and any(objectives), 'they would have been counted'


# --- sizes, precision ------------------------------------------------------------------------


def test_a_batch_of_one_and_odd_sizes():
    model = distiller().train()
    model.init_weights()
    losses = losses_of(model, detection_batch((97, 133)))
    assert all(losses[f'fpn.loss_{i}'].isfinite() for i in range(5))
    total(model, detection_batch((97, 133), (64, 64), (50, 150))).backward()


@pytest.mark.parametrize('size', [(97, 133), (64, 64), (33, 40)])
def test_other_strides_follow_the_resize_rule(size):
    """Stride 8 in the teacher, 32 in the student: its connected map takes the teacher's size."""
    model = distiller(detector(), teacher(segmenter()), dict(
        a=match(dict(student='backbone[3]', teacher='backbone.layer4'))))
    pairs = []
    model.objectives['a'].loss.register_forward_hook(lambda m, args, out: pairs.append(args))
    model.objectives['a'].connectors[0].register_forward_hook(lambda m, args, out: pairs.append(out))
    data = model.data_preprocessor(detection_batch(size), training=True)
    assert model(**data, mode='loss')['a.loss_0'].isfinite()
    connected, (student, target) = pairs
    height, width = (-(-side // 32) * 32 for side in size)
    assert connected.shape[-2:] == (height // 32, width // 32)
    assert target.shape[-2:] == student.shape[-2:] == (height // 8, width // 8)
    torch.testing.assert_close(student, nn.functional.interpolate(
        connected, size=target.shape[-2:], mode='bilinear', align_corners=False))


@pytest.mark.parametrize('task', ['segmentation', 'classification'])  # mmcv's NMS on the CPU knows no bfloat16
def test_mixed_precision(task):
    make, make_batch, tap = TASKS[task]
    model = distiller(make(), teacher(make(16)), dict(a=match(tap)))
    model.init_weights()
    model.train()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = losses_of(model, make_batch())
        loss, _ = model.parse_losses(losses)
    values = [value for name, value in losses.items() if name.startswith('a.loss_')]
    assert values and all(value.dtype == torch.float32 and value.isfinite() for value in values)
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() and g.dtype == torch.float32 for g in gradients)


def test_mixed_precision_is_near_full_precision():
    model = small().eval()
    batch = classification_batch()
    exact = losses_of(model, batch)['last.loss_0']
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rounded = losses_of(model, batch)['last.loss_0']
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0)


# --- 5. a tap never lies ---------------------------------------------------------------------


def test_pre_activations_are_distilled_as_they_are():
    """The loss sees negative values although the ReLU after the tap works in place."""
    model = small(objectives=dict(a=match('backbone.relu:in')))
    seen = []
    model.objectives['a'].connectors[0].register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    model.objectives['a'].loss.register_forward_hook(lambda m, args, out: seen.append(args[1]))
    losses_of(model.train(), classification_batch())
    assert all((feature < 0).any() for feature in seen)


def test_an_overwrite_only_in_training_is_an_error():
    model = small()
    model.neck.forward = lambda feats: tuple(feat.mul_(2).mean((2, 3)) for feat in feats)  # after the probe
    with pytest.raises(RuntimeError, match="student: the tapped tensor of 'backbone' was overwritten in place"):
        losses_of(model, classification_batch())


class OwnWays(BaseModel):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def extract_feat(self, inputs):
        return self.conv(inputs)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=self.conv(inputs).mean())

    def val_step(self, data):
        return ['own val step']

    def test_step(self, data):
        return ['own test step']

    def parse_losses(self, losses):
        return 2 * super().parse_losses(losses)[0], dict(own=torch.ones(1))


def test_what_a_student_does_in_its_own_way():
    model = FeatureDistiller(OwnWays(), teacher(classifier()), dict(
        a=match(dict(student='conv', teacher='backbone'))))
    assert model.val_step({}) == ['own val step'] and model.test_step({}) == ['own test step']
    assert model.parse_losses(dict(loss=torch.ones(())))[0] == 2


# --- students that cannot be worn ------------------------------------------------------------


class OwnStep(BaseModel):
    def train_step(self, data, optim_wrapper):
        return {}

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return inputs


def test_a_student_with_a_step_of_its_own():
    with pytest.raises(ConfigError, match='model.student: OwnStep has a training step of its own'):
        distiller(OwnStep())


def test_a_student_that_is_a_distiller():
    with pytest.raises(ConfigError, match='FeatureDistiller is itself a distiller, .*_base_.model.student'):
        distiller(small())


def test_a_student_that_is_no_model():
    with pytest.raises(ConfigError, match='model.student: expected a config of an mmengine BaseModel, got Conv2d'):
        distiller(nn.Conv2d(3, 4, 1))


def test_a_teacher_runs_no_further_than_the_objectives_that_are_on():
    model = small(objectives=dict(early=match('backbone.layer1'), late=match('backbone.layer3')))
    backbone, calls = model.teachers[0].model.backbone, []
    for name in ('layer1', 'layer2', 'layer3', 'layer4'):
        getattr(backbone, name).register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    losses_of(model, classification_batch())
    assert calls == ['layer1', 'layer2', 'layer3']
    calls.clear()
    model.objectives['late'].weight = 0.0
    assert 'late.loss_0' not in losses_of(model, classification_batch()) and calls == ['layer1']


def test_a_frozen_student_is_told_that_it_cannot_learn():
    model = small(objectives=dict(a=match('backbone.layer1')))
    for parameter in model.backbone.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(RuntimeError, match=r"model.objectives.a.taps: no gradient.*'backbone.layer1'.*frozen"):
        losses_of(model, classification_batch())
    both = small(objectives=dict(a=dict(match('backbone.layer1'), taps=['backbone.layer1', 'backbone.layer4'])))
    for name in ('conv1', 'bn1', 'layer1'):
        getattr(both.backbone, name).requires_grad_(False)
    assert losses_of(both, classification_batch())['a.loss_1'].requires_grad


def test_an_objective_is_not_named_like_a_loss_of_the_student():
    """mmseg logs decode.loss_ce."""
    model = distiller(segmenter(), teacher(segmenter(16)), dict(decode=match('backbone')))
    with pytest.raises(ConfigError, match=r"^model.objectives.decode: .*'decode.loss_ce'.*'decode_match'"):
        losses_of(model, segmentation_batch())
