"""Standardized targets: against NumPy in float64, in an objective, and in trainings."""
import numpy as np
import pytest
import torch

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.losses import squared_error
from mmfeatdistill.objectives import FeatureMatch
from mmfeatdistill.objectives.standardization import (
    Standardization,
    channel_moments,
    joined_moments,
    mean_and_scale,
    standardized,
)
from tests.engine.test_runner import same_tensors, straight_and_resumed
from tests.helpers.models import classifier, detector, distiller, match, teacher
from tests.helpers.passes import tapped
from tests.helpers.runs import DISTILLED, small

KEY = 'model.objectives.a'
KINDS = ('isotropic', 'channel')


def moments(*features):
    return joined_moments(torch.stack([channel_moments(feature) for feature in features]))


def by_numpy(features, kind):
    """The mean and scale of features (N, C, ...)."""
    values = np.concatenate([np.moveaxis(feature.double().numpy(), 1, -1).reshape(-1, feature.shape[1])
                             for feature in features])
    return values.mean(0), values.std(0) if kind == 'channel' else np.sqrt(values.var(0).mean())


# --- by definition ----------------------------------------------------------------------------


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('offset', [0, 1e6])
def test_statistics_of_several_batches_are_those_of_numpy(kind, offset):
    """Also where means are so large that the mean of squares would have no digits left for the variance."""
    spread = torch.tensor([0.01, 1, 3, 20], dtype=torch.float64)[:, None, None]
    batches = [offset + index + spread * torch.randn(size, 4, 6, 5, dtype=torch.float64)
               for index, size in enumerate((3, 1, 8))]
    mean, scale = mean_and_scale(moments(*batches), kind)
    wanted_mean, wanted_scale = by_numpy(batches, kind)
    np.testing.assert_allclose(mean, wanted_mean, rtol=1e-14)
    np.testing.assert_allclose(scale, np.broadcast_to(wanted_scale, scale.shape), rtol=1e-8 if offset else 1e-13)
    result = standardized(torch.cat(batches), mean, scale).numpy()
    np.testing.assert_allclose(result.mean((0, 2, 3)), 0, atol=1e-7)
    variances = result.var((0, 2, 3))
    np.testing.assert_allclose(variances if kind == 'channel' else variances.mean(), 1, rtol=1e-7)


@pytest.mark.parametrize('shape, channels', [((5, 3), 3), ((5, 7, 3), 3), ((5, 3, 7, 2), 3)])
def test_vectors_tokens_and_maps(shape, channels):
    feature = torch.randn(shape, dtype=torch.float64) * 2 + 1
    as_channels = feature.transpose(1, 2) if len(shape) == 3 else feature
    for kind in KINDS:
        mean, scale = mean_and_scale(moments(feature), kind)
        wanted_mean, wanted_scale = by_numpy([as_channels], kind)
        result = standardized(feature, mean, scale)
        wanted = (np.moveaxis(as_channels.numpy(), 1, -1) - wanted_mean) / wanted_scale
        np.testing.assert_allclose(np.moveaxis((result.transpose(1, 2) if len(shape) == 3 else result).numpy(), 1, -1),
                                   wanted, rtol=1e-10, atol=1e-12)


def test_one_scale_is_that_of_phi_s():
    """The root of the mean eigenvalue of the covariance; its rotation changes no squared error."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(500, 4)) @ generator.normal(size=(4, 4)) + 3
    eigenvalues, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
    mean, scale = mean_and_scale(moments(torch.from_numpy(rows)), 'isotropic')
    np.testing.assert_allclose(scale.numpy(), np.sqrt(eigenvalues.mean()), rtol=1e-12)
    hadamard = np.kron([[1, 1], [1, -1]], [[1, 1], [1, -1]]) / 2
    rotation = hadamard @ vectors.T
    rotated = (rows - rows.mean(0)) @ rotation.T / np.sqrt(eigenvalues.mean())
    np.testing.assert_allclose(rotated.var(0), 1, rtol=1e-10)
    student = torch.randn(500, 4, dtype=torch.float64)
    torch.testing.assert_close(squared_error(student, standardized(torch.from_numpy(rows), mean, scale)),
                               squared_error(student @ torch.from_numpy(rotation).T, torch.from_numpy(rotated)))


def test_a_part_without_values_changes_nothing():
    feature = torch.randn(4, 3, dtype=torch.float64)
    nothing = torch.zeros(3, 3, dtype=torch.float64)
    torch.testing.assert_close(joined_moments(torch.stack([nothing, channel_moments(feature), nothing])),
                               channel_moments(feature), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize('constant', [0.0, 1000.1])
def test_a_channel_that_does_not_vary_becomes_zero(constant):
    """Whatever the rounding of its mean."""
    feature = torch.randn(6, 2, 5, 5)
    feature[:, 1] = constant
    for kind in KINDS:
        mean, scale = mean_and_scale(moments(*feature.split(1)), kind)
        result = standardized(feature, mean.float(), scale.float())
        assert result[:, 1].abs().max() < 1e-3 < 1 / 2 < result[:, 0].std()
    assert scale.shape == (2,) and scale[1] == 1


@pytest.mark.parametrize('value, words', [(2.5, 'is the same in all its 12 values'), (np.nan, 'is not finite')])
def test_a_feature_that_tells_nothing_is_an_error(value, words):
    for kind in KINDS:
        with pytest.raises(ValueError, match=words):
            mean_and_scale(moments(torch.full((3, 2, 2, 2), value)), kind)


# --- in an objective ----------------------------------------------------------------------------


def prepared(student, teachers, connector=None, loss='SquaredError', **options):
    objective = FeatureMatch(['a'], dict(type=loss), connector, **options)
    objective.prepare(tapped(dict(a=[feature[:1] for feature in student])),
                      [tapped(dict(a=[feature[:1] for feature in target])) for target in teachers], KEY)
    return objective


def shown(objective, batches):
    """Lets an objective see batches, each a list of the teachers' features."""
    [part] = [module for module in objective.modules() if hasattr(module, 'update_statistics')]
    for batch in batches:
        part.update_statistics([tapped(dict(a=features)) for features in batch])
    part.finish_statistics()


@pytest.mark.parametrize('kind', KINDS)
def test_each_feature_of_each_teacher_has_its_own(kind):
    batches = [[[10 * teacher + 3 * level + (1 + level) * torch.randn(2, 4, 4, 4) for level in range(2)]
                for teacher in range(2)] for _ in range(3)]
    student = [torch.randn(2, 4, 4, 4, requires_grad=True) for _ in range(2)]
    objective = prepared(student, batches[0], standardize=kind)
    shown(objective, batches)
    losses = objective(tapped(dict(a=student)), [tapped(dict(a=features)) for features in batches[0]])
    assert list(losses) == ['loss_0', 'loss_1', 'loss_2', 'loss_3']
    for index, loss in enumerate(losses.values()):
        level = index % 2
        mean, scale = by_numpy([batch[index // 2][level] for batch in batches], kind)
        target = (batches[0][index // 2][level].numpy() - mean[:, None, None]) / np.reshape(scale, (-1, 1, 1))
        torch.testing.assert_close(loss, squared_error(student[level], torch.from_numpy(target).float()))
    sum(losses.values()).backward()
    assert all(feature.grad is not None for feature in student)
    assert not list(objective.parameters())


def test_a_connector_that_sees_the_teacher_sees_what_is_mimicked():
    student, batches = [torch.randn(2, 4, 8, 8)], [[[5 + torch.randn(2, 4, 8, 8)]]]
    objective = prepared(student, batches[0], dict(type='CrossAttention'), standardize='channel')
    shown(objective, batches)
    seen = []
    objective.connectors[0].register_forward_hook(lambda _, args, __: seen.append(args[1]))
    objective(tapped(dict(a=student)), [tapped(dict(a=batches[0][0]))])
    assert seen[0].mean().abs() < 1e-5


def test_without_statistics_it_says_which_hook_is_missing():
    feature = [torch.randn(2, 4, 4, 4)]
    objective = prepared(feature, [feature], standardize='isotropic')
    with pytest.raises(ConfigError, match=r"a\.standardize: 'isotropic' needs .*StatisticsHook"):
        objective(tapped(dict(a=feature)), [tapped(dict(a=feature))])


def test_a_teacher_that_tells_nothing_is_named():
    feature = [torch.ones(2, 4, 4, 4)]
    with pytest.raises(ConfigError, match=r'^model\.objectives\.a\.standardize: a\[0\].*: the teacher.s feature is '):
        shown(prepared(feature, [feature], standardize='isotropic'), [[feature]])


@pytest.mark.parametrize('options, words', [
    (dict(standardize=True), "standardize: expected 'isotropic' or 'channel', got True"),
    (dict(standardize='channel', standardize_images=0), 'standardize_images: expected a positive number, got 0')])
def test_other_values_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        FeatureMatch(['a'], dict(type='SquaredError'), **options)


@pytest.mark.parametrize('loss, kinds', [
    ('Pearson', KINDS), ('InstanceNormError', KINDS), ('RelationalDistance', ['isotropic']), ('SquaredError', []),
    ('ChannelWiseDivergence', []), ('AttentionTransfer', []), ('WeightedError', []), ('HierarchicalContext', []),
    ('ActivationBoundary', []), ('mmdet.SmoothL1Loss', [])])
def test_a_loss_that_normalizes_the_teacher_itself_is_refused(loss, kinds):
    for kind in KINDS:
        for size in ((), (1, 1), (6, 6)):
            feature = [torch.randn(2, 4, *size)]
            try:
                prepared(feature, [feature], loss=loss, standardize=kind)
            except ConfigError as error:
                is_refused = 'gives the same whatever the mean and scale' in str(error)
                assert is_refused or size != (6, 6), error  # some losses take no vectors
            else:
                is_refused = False
            assert is_refused == (kind in kinds) or size != (6, 6)


def test_predictions_are_refused():
    with pytest.raises(ConfigError, match=r"fpn\.standardize: the teacher's 'head.fc' is what it predicts"):
        distiller(classifier(), teacher(classifier(16)), dict(fpn=dict(
            type='FeatureMatch', taps=['head.fc'], loss=dict(type='SquaredError'), standardize='channel')))


def test_a_head_without_predictions_is_not():
    taps = [dict(student='rpn_head.rpn_conv', teacher='rpn_head.rpn_conv')]
    model = distiller(detector(), teacher(detector()), dict(fpn=match(*taps, standardize='channel')))
    assert model.objectives['fpn'].standardization is not None


# --- in trainings ------------------------------------------------------------------------------


def test_a_resumed_training_looks_at_no_image_and_is_the_same_bit_for_bit(in_digits, tmp_path, monkeypatch):
    looked_at = []
    update = Standardization.update_statistics
    monkeypatch.setattr(Standardization, 'update_statistics', lambda self, teachers: (
        looked_at.append(len(teachers[0].inputs)), update(self, teachers)))

    def config(name):
        cfg = small(DISTILLED['classification'], tmp_path / name, train_dataloader__num_workers=0)
        cfg.model.objectives.stage4.update(standardize='channel', standardize_images=20)
        cfg.update({f'val_{part}': None for part in ('cfg', 'dataloader', 'evaluator')})
        cfg.default_hooks.checkpoint.save_best = None
        return cfg

    straight, resumed = straight_and_resumed(config, crash_at=5)
    assert sum(looked_at) == 2 * 20, 'by the first and the interrupted training'
    assert straight.iter == resumed.iter == 8
    assert same_tensors(straight.model.state_dict(), resumed.model.state_dict())
    [scale] = resumed.model.objectives['stage4'].standardization.scales
    assert (scale.scale > 0).all() and scale.mean.any()
