"""What single losses promise beyond the properties that all share."""
import sys

import pytest
import torch
import torch.nn.functional as F

from mmfeatdistill.losses import (
    activation_boundary,
    appearance,
    attention_transfer,
    binary_divergence,
    box_distance,
    channel_wise_divergence,
    decoupled,
    dist,
    distribution_divergence,
    factor_transfer,
    instance_norm_error,
    kl_divergence,
    lsh,
    lsh_bias,
    masked_generative,
    overhaul_margin,
    partial_l2,
    pearson,
    quality_focal,
    relational_angle,
    relational_distance,
    squared_error,
    standardize_logits,
)


def randn(*shape, seed=0, **options):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **options)


def gradient(loss, student):
    student = student.clone().requires_grad_()
    loss(student).backward()
    return student.grad


@pytest.mark.parametrize('loss', [dist, lambda s, t: kl_divergence(s, t, tau=2.0)])
def test_positions_of_a_dense_prediction_are_samples(loss):
    student, teacher = randn(2, 5, 3, 4), randn(2, 5, 3, 4, seed=1)
    flat = (logits.permute(0, 2, 3, 1).reshape(-1, 5) for logits in (student, teacher))
    torch.testing.assert_close(loss(student, teacher), loss(*flat))


@pytest.mark.parametrize('loss', [
    kl_divergence, channel_wise_divergence, dist,
    lambda s, t, tau: decoupled(s[:, :, 0], t[:, :, 0], labels=torch.tensor([0, 4]), alpha=1, beta=2, tau=tau)])
def test_temperature_keeps_the_size_of_the_gradient(loss):
    student, teacher = randn(2, 5, 3), randn(2, 5, 3, seed=1)
    torch.testing.assert_close(loss(4 * student, 4 * teacher, tau=4), 16 * loss(student, teacher, tau=1))


@pytest.mark.parametrize('loss', [
    lambda s, t, first, second: dist(s, t, beta=first, gamma=second),
    lambda s, t, first, second: decoupled(s, t, labels=torch.arange(4), alpha=first, beta=second, tau=1)])
def test_two_terms_are_weighted_apart(loss):
    student, teacher = randn(4, 5), randn(4, 5, seed=1)
    first, second = loss(student, teacher, 1, 0), loss(student, teacher, 0, 1)
    assert (first - second).abs() > 1e-2
    torch.testing.assert_close(loss(student, teacher, 2, 3), 2 * first + 3 * second)


def test_decoupled_weights_that_give_plain_divergence():
    student, teacher = 3 * randn(1, 6, dtype=torch.float64), 3 * randn(1, 6, seed=1, dtype=torch.float64)
    for label in range(6):
        rest = 1 - teacher.softmax(1)[0, label].item()
        split = decoupled(student, teacher, labels=torch.tensor([label]), alpha=1, beta=rest, tau=1)
        torch.testing.assert_close(split, kl_divergence(student, teacher, tau=1))


def test_confident_logits_stay_finite():
    student, teacher, labels = 1e3 * randn(4, 6), 1e3 * randn(4, 6, seed=1), torch.arange(4)
    for loss in (lambda s: kl_divergence(s, teacher, tau=1), lambda s: dist(s, teacher),
                 lambda s: decoupled(s, teacher, labels=labels, alpha=1, beta=8, tau=1)):
        assert loss(student).isfinite()
        assert gradient(loss, student).isfinite().all()


@pytest.mark.parametrize('loss', [factor_transfer, attention_transfer, instance_norm_error, pearson,
                                  relational_angle, relational_distance])
def test_dead_student_has_a_finite_loss(loss):
    """All features zero: lengths, deviations and distances that are divided by vanish."""
    student, teacher = torch.zeros(3, 4, 5), randn(3, 4, 5)
    assert loss(student, teacher).isfinite()
    assert gradient(lambda s: loss(s, teacher), student).isfinite().all()


@pytest.mark.parametrize('loss', [relational_angle, relational_distance, factor_transfer])
def test_vanishing_vectors_do_not_blow_up_the_gradient(loss):
    """Two equal samples have no direction; a feature of length 0 has none either."""
    student, teacher = randn(4, 6), randn(4, 6, seed=1)
    student[1] = student[0]
    student[2] = 0
    assert gradient(lambda s: loss(s, teacher), student).abs().max() < 10


@pytest.mark.parametrize('loss', [pearson, relational_angle, relational_distance])
def test_scale_and_shift_of_the_student_do_not_matter(loss):
    student, teacher = randn(5, 4, dtype=torch.float64), randn(5, 4, seed=1, dtype=torch.float64)
    torch.testing.assert_close(loss(3 * student + 2, teacher), loss(student, teacher), rtol=1e-5, atol=0)


def test_instance_norm_error_normalizes_each_image_for_itself():
    teacher, factors = randn(3, 4, 5, dtype=torch.float64), torch.tensor([1.0, 2.0, -3.0]).view(3, 1, 1)
    losses = [instance_norm_error(factor * image[None] + 7, image[None]) for factor, image in zip(factors, teacher)]
    assert [loss.item() for loss in losses] == pytest.approx([0, 0, 2], abs=1e-3)
    torch.testing.assert_close(instance_norm_error(factors * teacher + 7, teacher), torch.stack(losses).mean())


@pytest.mark.parametrize('shape', [(2, 5, 1, 1), (2, 5, 1)])
def test_one_position_has_no_instance_normalization(shape):
    with pytest.raises(ValueError, match=r'maps of at least two positions, got \(2, 5, 1'):
        instance_norm_error(randn(*shape), randn(*shape))


def test_activation_boundary_asks_for_the_side_and_the_margin():
    student = torch.tensor([[0.5, 2.0, -2.0, 0.5, -2.0]])
    teacher = torch.tensor([[0.1, 9.0, -9.0, -0.1, 0.0]])
    assert activation_boundary(student, teacher, margin=1.0) == 0.5**2 + 0 + 0 + 1.5**2 + 0


def test_appearance_is_blind_to_inactive_values_once_pooled():
    student, teacher = torch.tensor([[[-1.0, 3.0]]]), torch.tensor([[[-3.0, 3.0]]])
    first = torch.ones(1, 2, 2), torch.zeros(1, 2, 2)
    assert appearance([student], [teacher]) == appearance([student], [teacher], pool_last=False) == 2
    assert appearance([first[0], student], [first[1], teacher]) == 1 + 2


def test_overhaul_margin_is_the_mean_of_the_negative_part():
    weight, bias = torch.tensor([1.0, -0.5, 2.0]), torch.tensor([0.3, 0.4, -1.0])
    samples = bias + weight * randn(200000, 3)
    expected = samples.clamp(max=0).sum(0) / (samples < 0).sum(0)
    torch.testing.assert_close(overhaul_margin(weight, bias), expected, rtol=1e-2, atol=0)


def test_overhaul_margin_at_its_limits():
    weight, bias = torch.tensor([1.0, -1.0, 0.0, 0.0]), torch.tensor([4.0, 4.0, 2.0, -2.0])
    assert torch.equal(overhaul_margin(weight, bias), torch.tensor([-3.0, -3.0, 0.0, -2.0]))
    assert not overhaul_margin(weight.requires_grad_(), bias.requires_grad_()).requires_grad


def test_partial_l2_counts_where_it_matters():
    student, teacher = 2 * randn(2, 3, 50), 2 * randn(2, 3, 50, seed=1)
    margin = torch.tensor([-0.1, -0.5, -1.0])
    target = teacher.clamp(min=margin[:, None].expand(2, 3, 50))
    counts = (student > target) | (target > 0)
    assert 0.2 < counts.float().mean() < 0.9
    expected = ((student - target).square() * counts).sum()
    torch.testing.assert_close(partial_l2(student, teacher, margin=margin), expected)
    free = gradient(lambda s: partial_l2(s, teacher, margin=margin), student)[~counts]
    assert not free.any()


class TestLsh:
    student, teacher = randn(6, 5), randn(6, 5, seed=1)
    hashes = dict(weight=randn(9, 5, seed=2), bias=randn(9, seed=3))

    @pytest.mark.parametrize('options', [{}, dict(kind='l1', with_l2=True)])
    def test_mask_selects_samples(self, options):
        mask = torch.tensor([True, False, True, True, False, False])
        selected = lsh(self.student[mask], self.teacher[mask], **self.hashes, **options)

        def masked(student):
            return lsh(student, self.teacher, **self.hashes, sample_mask=mask, **options)
        torch.testing.assert_close(masked(self.student), selected)
        assert torch.equal(gradient(masked, self.student).any(1), mask)

    def test_nothing_selected(self):
        def masked(student):
            return lsh(student, self.teacher, **self.hashes, sample_mask=torch.zeros(6, dtype=bool))
        assert masked(self.student) == 0
        assert torch.equal(gradient(masked, self.student), torch.zeros(6, 5))

    def test_frozen_hash(self):
        hashes = {name: value.clone().requires_grad_() for name, value in self.hashes.items()}
        assert not lsh(self.student, self.teacher, **hashes).requires_grad

    @pytest.mark.parametrize('samples', [6, 7])
    def test_median_leaves_half_of_the_samples_above(self, samples):
        projections = randn(samples, 9)
        above = (projections + lsh_bias(projections) > 0).sum(0)
        assert (above == samples // 2).all()

    def test_other_biases(self):
        projections = randn(7, 9)
        assert (projections + lsh_bias(projections, kind='mean')).mean(0).abs().max() < 1e-6
        assert not lsh_bias(projections, kind='zero').any()


STUDENT, TEACHER, LOGITS, LABELS = randn(2, 3, 4, 4), randn(2, 3, 4, 4), randn(2, 5), torch.tensor([0, 4])
HASHES = dict(weight=randn(7, 5), bias=randn(7))


@pytest.mark.parametrize('error, message, call', [
    (ValueError, 'tau .* 0', lambda: kl_divergence(STUDENT, TEACHER, tau=0.0)),
    (ValueError, 'tau .* -1', lambda: channel_wise_divergence(STUDENT, TEACHER, tau=-1)),
    (ValueError, 'tau .* 0', lambda: dist(LOGITS, LOGITS, tau=0)),
    (ValueError, 'tau .* 0', lambda: decoupled(LOGITS, LOGITS, labels=LABELS, alpha=1, beta=1, tau=0)),
    (TypeError, 'labels.*int32', lambda: decoupled(
        LOGITS, LOGITS, labels=LABELS.int(), alpha=1, beta=1, tau=1)),
    (ValueError, r'labels.*\(2, 5\).*\(1,\)', lambda: decoupled(
        LOGITS, LOGITS, labels=LABELS[:1], alpha=1, beta=1, tau=1)),
    (ValueError, r'two classes.*\(2, 1\).*use_sigmoid', lambda: kl_divergence(LOGITS[:, :1], LOGITS[:, :1], tau=1)),
    (ValueError, r'two classes.*\(2, 1\).*use_sigmoid', lambda: dist(LOGITS[:, :1], LOGITS[:, :1])),
    (ValueError, r'two classes.*\(2, 1\)', lambda: decoupled(
        LOGITS[:, :1], LOGITS[:, :1], labels=LABELS, alpha=1, beta=1, tau=1)),
    (ValueError, 'margin.*-1', lambda: activation_boundary(STUDENT, TEACHER, margin=-1)),
    (ValueError, r'\(2, 3, 4, 4\).*\(4,\)', lambda: partial_l2(STUDENT, TEACHER, margin=torch.zeros(4))),
    (TypeError, 'margin: .*float', lambda: partial_l2(STUDENT, TEACHER, margin=-1.0)),
    (ValueError, r'\(3,\) and \(2,\)', lambda: overhaul_margin(torch.ones(3), torch.ones(2))),
    (ValueError, r'\(C\)', lambda: overhaul_margin(torch.ones(2, 2), torch.ones(2, 2))),
    (TypeError, 'bn_bias: .*int64', lambda: overhaul_margin(torch.ones(2), LABELS)),
    (ValueError, r'\(2, 48\).*\(7, 5\)', lambda: lsh(STUDENT, TEACHER, **HASHES)),
    (ValueError, r'\(6,\)', lambda: lsh(LOGITS, LOGITS, weight=HASHES['weight'], bias=randn(6))),
    (TypeError, 'weight: .*int64', lambda: lsh(LOGITS, LOGITS, weight=LABELS, bias=HASHES['bias'])),
    (ValueError, "kind .* 'l3'", lambda: lsh(LOGITS, LOGITS, **HASHES, kind='l3')),
    (TypeError, 'sample_mask.*int64', lambda: lsh(LOGITS, LOGITS, **HASHES, sample_mask=LABELS)),
    (ValueError, r'sample_mask.*\(2, 5\).*\(1,\)', lambda: lsh(
        LOGITS, LOGITS, **HASHES, sample_mask=LABELS[:1] > 0)),
    (ValueError, "kind .* 'mode'", lambda: lsh_bias(LOGITS, kind='mode')),
    (ValueError, r'\(0, 5\)', lambda: lsh_bias(LOGITS[:0])),
    (ValueError, r'\(2, 1, 4\).*\(2, 3, 4, 4\)', lambda: masked_generative(
        STUDENT, TEACHER, generator=torch.nn.Identity(), noise=torch.rand(2, 1, 4), mask_ratio=0.5)),
    (ValueError, r'\(3, 1, 4, 4\).*\(2, 3, 4, 4\)', lambda: masked_generative(
        STUDENT, TEACHER, generator=torch.nn.Identity(), noise=torch.rand(3, 1, 4, 4), mask_ratio=0.5)),
    (ValueError, 'mask_ratio.*65', lambda: masked_generative(
        STUDENT, TEACHER, generator=torch.nn.Identity(), noise=torch.rand(2, 1, 4, 4), mask_ratio=65)),
    (TypeError, 'lists.*Tensor', lambda: appearance(STUDENT, TEACHER)),
    (ValueError, '1 and 2', lambda: appearance([STUDENT], [TEACHER, TEACHER])),
    (ValueError, '0 and 0', lambda: appearance([], [])),
])
def test_wrong_options_are_named(error, message, call):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize('loss, kept', [
    (squared_error, 0), (lambda s, t: activation_boundary(s, t, margin=1.0), 1),
    (lambda s, t: partial_l2(s, t, margin=-torch.ones(3)), 1), (attention_transfer, 0),
    (lambda s, t: appearance([s], [t]), 1), (factor_transfer, 1), (pearson, 1),
    (lambda s, t: kl_divergence(s, t, tau=2.0), 2),
    (lambda s, t: channel_wise_divergence(s, t, tau=2.0), 2)])
def test_memory_kept_for_the_backward_pass(loss, kept):
    """How many tensors of the feature's size a loss holds on to, beyond its two inputs."""
    student, teacher = randn(2, 3, 8, 8).requires_grad_(), randn(2, 3, 8, 8, seed=1)
    held = {}

    def pack(tensor):
        # By their storage: an expanded tensor holds one value.
        if tensor.untyped_storage().nbytes() >= student.untyped_storage().nbytes() and tensor.dtype != torch.bool:
            held[tensor.data_ptr()] = tensor  # kept alive, so that no address comes twice
        return tensor
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(student, teacher)
    assert len(held.keys() - {student.data_ptr(), teacher.data_ptr()}) <= kept


@pytest.mark.parametrize('kind', ['bce', 'l1', 'l2'])
@pytest.mark.parametrize('masked', [False, True])
def test_hashing_a_part_at_a_time_changes_nothing(monkeypatch, kind, masked):
    student, teacher = randn(7, 6), randn(7, 6, seed=1)
    options = dict(weight=randn(5, 6), bias=randn(5), kind=kind, with_l2=True,
                   sample_mask=torch.arange(7) % 3 > 0 if masked else None)

    def results():
        leaf = student.clone().requires_grad_()
        value = lsh(leaf, teacher, **options)
        (3 * value).backward()
        return value.detach(), leaf.grad, lsh(student, teacher, **options)

    entire = results()
    monkeypatch.setattr(sys.modules['mmfeatdistill.losses.lsh'], '_PROJECTIONS', 12)  # two rows, the last part one
    for expected, found in zip(entire, results()):
        torch.testing.assert_close(found, expected)
    assert entire[0] == entire[2] and entire[1].any()


def test_generator_is_trained_in_the_precision_of_the_model():
    generator = torch.nn.Conv2d(3, 3, 3, padding=1).bfloat16()
    student = STUDENT.bfloat16()
    loss = masked_generative(student, TEACHER, generator=generator, noise=torch.rand(2, 1, 4, 4), mask_ratio=0.5)
    loss.backward()
    assert loss.dtype == torch.float32 and generator.weight.grad.any()


def test_standardized_logits_are_those_of_any_shift_and_scale_and_of_each_position():
    logits = randn(3, 5, 2)
    found = standardize_logits(logits)
    torch.testing.assert_close(standardize_logits(40 * logits - 7), found)
    torch.testing.assert_close(found[:, :, 1], standardize_logits(logits[:, :, 1]))
    torch.testing.assert_close(found.std(dim=1), torch.ones(3, 2))
    assert standardize_logits(logits.half()).dtype == torch.float32


@pytest.mark.parametrize('spread', [0.0, 1e-8, 1e-5])
def test_almost_equal_logits_send_a_bounded_gradient_back(spread):
    logits, teacher = 3 + spread * randn(2, 5), randn(2, 5, seed=1)
    sent = gradient(lambda s: kl_divergence(standardize_logits(s), standardize_logits(teacher), tau=2), logits)
    assert sent.isfinite().all() and sent.abs().max() < 2e3


@pytest.mark.parametrize('logits, error, message', [
    (torch.zeros(3, 1), ValueError, r'two classes .*\(3, 1\)'), (torch.zeros(3), ValueError, r'two classes'),
    (torch.zeros(3, 2, dtype=torch.int64), TypeError, 'logits: expected a floating-point tensor')])
def test_what_cannot_be_standardized(logits, error, message):
    with pytest.raises(error, match=message):
        standardize_logits(logits)


def test_quality_focal_is_that_of_mmdet_with_soft_targets():
    from mmdet.models.losses.gfocal_loss import quality_focal_loss_tensor_target
    student, teacher = randn(5, 6), randn(5, 6, seed=1)
    for beta in (1.0, 2.0):
        wanted = quality_focal_loss_tensor_target(student, teacher.sigmoid(), beta=beta, reduction='none')
        torch.testing.assert_close(quality_focal(student, teacher, beta=beta), wanted)
    with pytest.raises(ValueError, match='beta must be at least 1, got 0.5'):
        quality_focal(student, teacher, beta=0.5)


def test_binary_divergence_has_the_gradient_of_the_cross_entropy():
    student, teacher = randn(5, 6), randn(5, 6, seed=1)
    torch.testing.assert_close(
        gradient(lambda s: binary_divergence(s, teacher).sum(), student),
        gradient(lambda s: F.binary_cross_entropy_with_logits(s, teacher.sigmoid(), reduction='sum'), student))


def test_distribution_divergence_is_kl_divergence_of_each_row():
    student, teacher = randn(5, 6), randn(5, 6, seed=1)
    torch.testing.assert_close(distribution_divergence(student, teacher),
                               torch.stack([kl_divergence(s[None], t[None], tau=1) for s, t in zip(student, teacher)]))


def test_box_distance_is_the_giou_of_mmdet():
    from mmdet.structures.bbox import bbox_overlaps
    first, second = (corners + torch.cat([torch.zeros(50, 2), randn(50, 2, seed=seed).abs()], 1) for seed, corners in (
        (2, randn(50, 2).repeat(1, 2)), (3, randn(50, 2, seed=1).repeat(1, 2))))
    torch.testing.assert_close(box_distance(first, second),
                               1 - bbox_overlaps(first, second, mode='giou', is_aligned=True))


def test_boxes_without_area():
    point = torch.tensor([[1., 1., 1., 1.], [0., 0., 0., 5.]])
    assert not box_distance(point, point).any() and not gradient(lambda s: box_distance(s, point).sum(), point).any()
    far = box_distance(point, point + 100)
    assert (far > 0.9).all() and box_distance(point[:1], torch.tensor([[0., 0., 2., 2.]])) == 1
    with pytest.raises(ValueError, match=r'shape \(N, 4\), four corners each, got \(2, 3\)'):
        box_distance(point[:, :3], point[:, :3])
