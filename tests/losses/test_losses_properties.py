"""What holds for every loss: one table of losses, and a test for each property."""
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from mmfeatdistill import losses
from mmfeatdistill.registry import MODELS

NUMBERS = torch.Generator().manual_seed(0)
HASH = dict(weight=torch.randn(7, 5 * 4 * 3, generator=NUMBERS), bias=torch.randn(7, generator=NUMBERS))
MARGIN = -torch.rand(5, generator=NUMBERS)
MAP, VECTOR, BOX = (5, 4, 3), (6,), (4,)


def nothing(batch: int) -> dict[str, torch.Tensor]:
    return {}


def zero(teacher: torch.Tensor, **rows: torch.Tensor) -> float:
    return 0.0


@dataclass(frozen=True)
class Case:
    """A loss, the shape of one sample, its arguments with one row a sample, its value at s = t."""

    loss: Callable[..., torch.Tensor]
    sample: tuple[int, ...]
    rows: Callable[[int], dict[str, torch.Tensor]] = nothing
    at_equality: Callable[..., Any] = zero


def labels(batch):
    return dict(labels=torch.arange(batch) % 6)


def noise(batch):
    return dict(noise=torch.linspace(0, 1, batch * 12).reshape(batch, 1, 4, 3))


def regions(batch):
    inside = torch.linspace(0, 1, batch * 12).reshape(batch, 4, 3)
    return dict(foreground=inside, background=1 - inside)


def queries(batch):
    """Three of each of two layers."""
    numbers = torch.Generator().manual_seed(2)
    return dict(queries=torch.randn(batch, 2, 3, 5, generator=numbers),
                scores=torch.rand(batch, 2, 3, generator=numbers))


def position_weight(batch):
    return dict(weight=torch.linspace(0, 1, batch * 12).reshape(batch, 1, 4, 3))


def mask(batch):
    return dict(sample_mask=torch.arange(batch) % 2 == 0)


def module(name, **options):
    return MODELS.build(dict(type=f'mmfeatdistill.{name}', **options))


def hash_entropy(teacher):
    """What is left of the cross-entropy when the student has the teacher's projections."""
    projections = F.linear(teacher.flatten(1), HASH['weight'].to(teacher), HASH['bias'].to(teacher))
    return F.softplus(-projections.abs()).mean()


CASES = {
    'activation_boundary': Case(
        lambda s, t: losses.activation_boundary(s, t, margin=1.0), MAP,
        at_equality=lambda t: (1 - t.abs()).clamp(min=0).square().sum() / len(t)),
    'appearance': Case(lambda s, t: losses.appearance([s], [t]), MAP),
    'attention_error': Case(lambda s, t: losses.attention_error(s, t, tau=0.5), MAP),
    'attention_guided': Case(
        losses.attention_guided, MAP, at_equality=lambda t: losses.normalized_distance(t, losses.refined(t))),
    'attention_transfer': Case(losses.attention_transfer, MAP),
    'binary_divergence': Case(lambda s, t: losses.binary_divergence(s, t).sum(), VECTOR),
    'box_distance': Case(lambda s, t: losses.box_distance(s, t).sum(), BOX),
    'channel_wise_divergence': Case(
        lambda s, t: losses.channel_wise_divergence(s, t, tau=2.0), MAP),
    'decoupled': Case(
        lambda s, t, **rows: losses.decoupled(s, t, alpha=1.0, beta=2.0, tau=3.0, **rows), VECTOR,
        labels),
    'dist': Case(losses.dist, VECTOR),
    'dist standardized': Case(module('DIST', standardize=True), VECTOR),
    'dist dense': Case(lambda s, t: losses.dist(s, t, beta=2.0, gamma=3.0, tau=2.0), MAP),
    'distribution_divergence': Case(lambda s, t: losses.distribution_divergence(s, t).sum(), VECTOR),
    'factor_transfer': Case(losses.factor_transfer, MAP),
    'focal': Case(lambda s, t, **rows: losses.focal(s, t, masks=[*rows.values()], tau=0.5).sum(), MAP,
                  regions),
    'global_relation': Case(lambda s, t: losses.global_relation(
        s, t, student_block=torch.nn.Identity(), teacher_block=torch.nn.Identity()), MAP),
    'hierarchical_context': Case(losses.hierarchical_context, MAP),
    'instance_norm_error': Case(losses.instance_norm_error, MAP),
    'kl_divergence': Case(lambda s, t: losses.kl_divergence(s, t, tau=4.0), VECTOR),
    'kl_divergence standardized': Case(module('KLDivergence', standardize=True), MAP),
    'kl_divergence dense': Case(lambda s, t: losses.kl_divergence(s, t, tau=1.0), MAP),
    'lsh': Case(lambda s, t: losses.lsh(s, t, **HASH), MAP, at_equality=hash_entropy),
    'lsh l1': Case(lambda s, t: losses.lsh(s, t, **HASH, kind='l1'), MAP),
    'lsh l2 selected': Case(
        lambda s, t, **rows: losses.lsh(s, t, **HASH, kind='l2', with_l2=True, **rows), MAP, mask),
    'masked_generative': Case(
        lambda s, t, **rows: losses.masked_generative(
            s, t, generator=torch.nn.Identity(), mask_ratio=0.5, **rows), MAP, noise,
        at_equality=lambda t, noise: (t.square() * (noise > 0.5)).sum() / len(t)),
    'normalized_distance': Case(losses.normalized_distance, MAP),
    'partial_l2': Case(lambda s, t: losses.partial_l2(s, t, margin=MARGIN), MAP),
    'pearson': Case(losses.pearson, MAP),
    'pearson of vectors': Case(losses.pearson, VECTOR),
    'quality_focal': Case(lambda s, t: losses.quality_focal(s, t).sum(), VECTOR),
    'relational_angle': Case(losses.relational_angle, VECTOR),
    'relational_distance': Case(losses.relational_distance, VECTOR),
    'squared_error': Case(losses.squared_error, MAP),
    'target_aware': Case(lambda s, t, **rows: losses.target_aware(
        s, t, **{name: row.transpose(0, 1) for name, row in rows.items()}), MAP, queries),
    'weighted_error': Case(losses.weighted_error, MAP, position_weight),
}
# type: (function, options that differ from the defaults, the defaults)
MODULES = {
    'ActivationBoundary': (losses.activation_boundary, dict(margin=2.0), dict(margin=1.0)),
    'AttentionGuided': (losses.attention_guided, {}, {}),
    'AttentionTransfer': (losses.attention_transfer, {}, {}),
    'ChannelWiseDivergence': (losses.channel_wise_divergence, dict(tau=2.0), dict(tau=1.0)),
    'DIST': (losses.dist, dict(beta=2.0, gamma=3.0, tau=4.0), {}),
    'FactorTransfer': (losses.factor_transfer, {}, {}),
    'HierarchicalContext': (losses.hierarchical_context, {}, {}),
    'InstanceNormError': (losses.instance_norm_error, {}, {}),
    'KLDivergence': (losses.kl_divergence, dict(tau=2.0), dict(tau=4.0)),
    'Pearson': (losses.pearson, {}, {}),
    'RelationalAngle': (losses.relational_angle, {}, {}),
    'RelationalDistance': (losses.relational_distance, {}, {}),
    'SquaredError': (losses.squared_error, {}, {}),
    'WeightedError': (losses.weighted_error, {}, {}),
}
# Losses on what has no channels: maps of attention, relations between samples.
OF_ANY_WIDTH = {'attention_transfer', 'relational_angle', 'relational_distance'}
every_loss = pytest.mark.parametrize('case', CASES.values(), ids=CASES)


def pair(case: Case, batch: int = 4, dtype: torch.dtype = torch.float32):
    numbers = torch.Generator().manual_seed(1)
    student, teacher = (torch.randn(batch, *case.sample, generator=numbers).to(dtype).requires_grad_()
                        for _ in range(2))
    return student, teacher, case.rows(batch)


def evaluate(case: Case, student, teacher, rows):
    """The loss, after its backward pass."""
    value = case.loss(student, teacher, **rows)
    assert value.shape == ()
    value.backward()
    return value.detach()


def test_tables_are_complete():
    public = {name for name in losses.__all__}
    modules = {name for name in public if name[0].isupper()}
    assert modules == set(MODULES)
    assert public - modules - {'lsh_bias', 'overhaul_margin', 'refined', 'standardize_logits'} == {
        name.split()[0] for name in CASES}


@every_loss
def test_value_for_identical_inputs(case):
    student, teacher, rows = pair(case, dtype=torch.float64)
    expected = torch.as_tensor(case.at_equality(teacher.detach(), **rows), dtype=torch.float64)
    value = case.loss(teacher.detach().clone(), teacher, **rows)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    assert case.loss(student, teacher, **rows) > value + 1e-3


@every_loss
def test_gradient_reaches_the_student_alone(case):
    student, teacher, rows = pair(case)
    evaluate(case, student, teacher, rows)
    assert student.grad.isfinite().all() and student.grad.any()
    assert teacher.grad is None


@every_loss
def test_gradient_is_that_of_the_value(case):
    student, teacher, rows = pair(case, dtype=torch.float64)
    assert case.loss(student, teacher, **rows).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda s: case.loss(s, teacher, **rows), student)


@every_loss
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_low_precision_is_computed_in_float32(case, dtype):
    student, teacher, rows = pair(case, dtype=dtype)
    value = evaluate(case, student, teacher, rows)
    wide = student.detach().float().requires_grad_()
    expected = evaluate(case, wide, teacher.detach().float(), rows)
    torch.testing.assert_close(value, expected, rtol=0, atol=0)
    torch.testing.assert_close(student.grad, wide.grad.to(dtype))


@every_loss
def test_mixed_precision_leaves_the_value(case):
    student, teacher, rows = pair(case)
    with torch.autocast('cpu', torch.bfloat16):
        mixed = case.loss(student, teacher, **rows)
    torch.testing.assert_close(mixed, case.loss(student, teacher, **rows), rtol=0, atol=0)


@every_loss
@pytest.mark.parametrize('batch', [0, 1])
def test_small_batches(case, batch):
    student, teacher, rows = pair(case, batch)
    value = evaluate(case, student, teacher, rows)
    assert value.isfinite() and student.grad.isfinite().all()
    assert value == 0 or batch == 1


@every_loss
def test_order_of_the_batch_does_not_matter(case):
    student, teacher, rows = pair(case, dtype=torch.float64)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = case.loss(student[order], teacher[order], **{k: v[order] for k, v in rows.items()})
    torch.testing.assert_close(shuffled, case.loss(student, teacher, **rows), rtol=1e-10, atol=0)


@every_loss
def test_inputs_are_left_as_they_are(case):
    student, teacher, rows = pair(case)
    tensors = [student, teacher, *rows.values()]
    before = [(tensor.detach().clone(), tensor._version) for tensor in tensors]
    evaluate(case, student, teacher, rows)
    for tensor, (values, version) in zip(tensors, before):
        assert torch.equal(tensor, values) and tensor._version == version


@every_loss
def test_wrong_inputs_are_named(case):
    student, teacher, rows = pair(case)
    with pytest.raises(ValueError, match=r'\(4, .*\) and \(3, '):
        case.loss(student, teacher[:3], **rows)
    with pytest.raises(TypeError, match='student: .* torch.int64'):
        case.loss(student.long(), teacher, **rows)
    with pytest.raises(TypeError, match='teacher: .* list'):
        case.loss(student, [teacher], **rows)
    with pytest.raises(ValueError, match=r'shape \(N, .*\(\) and \(\)'):
        case.loss(student.sum(), teacher.sum(), **rows)


@pytest.mark.parametrize('name', CASES)
def test_features_of_another_width_are_compared_where_the_width_does_not_matter(name):
    case = CASES[name]
    student, teacher, rows = pair(case)
    wider = torch.cat((teacher, torch.zeros_like(teacher)), dim=1)
    if name not in OF_ANY_WIDTH:
        with pytest.raises(ValueError, match='the same shape, got'):
            case.loss(student, wider, **rows)
        return
    torch.testing.assert_close(case.loss(student, wider, **rows), case.loss(student, teacher, **rows))
    torch.testing.assert_close(case.loss(torch.cat((student, torch.zeros_like(student)), dim=1), teacher, **rows),
                               case.loss(student, teacher, **rows))
    assert evaluate(case, student, wider, rows).isfinite() and student.grad.any()


@pytest.mark.parametrize('loss', [losses.relational_angle, losses.relational_distance, losses.attention_transfer])
@pytest.mark.parametrize('shape', [(2, 7, 4, 3), (3, 9, 4, 2), (3, 9, 4)])
def test_all_but_the_width_must_agree(loss, shape):
    with pytest.raises(ValueError, match=r'the same shape, but for the width, got \(3, 5, 4, 3\) and '):
        loss(torch.rand(3, 5, 4, 3), torch.rand(shape))


@every_loss
def test_device_is_never_waited_for(case):
    """Tensors without values: whatever reads one (``item``, ``if``, a boolean index) fails."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        student = torch.zeros(4, *case.sample, requires_grad=True)
        evaluate(case, student, torch.zeros(4, *case.sample), case.rows(4))


@pytest.mark.parametrize('name', MODULES)
def test_module_is_the_weighted_function(name):
    function, options, defaults = MODULES[name]
    numbers = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, 4, 5, 3, generator=numbers)
    student, teacher = student[..., None], teacher[..., None]
    module = MODELS.build(dict(type=f'mmfeatdistill.{name}', loss_weight=3.0, **options))
    assert torch.equal(module(student, teacher), 3 * function(student, teacher, **options))
    module = MODELS.build(dict(type=f'mmfeatdistill.{name}'))
    assert torch.equal(module(student, teacher), function(student, teacher, **defaults))
    assert not module.state_dict()
