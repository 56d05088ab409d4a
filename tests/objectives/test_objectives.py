import pytest
import torch
from torch import nn

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.objectives import FeatureMatch, Objective, TapPair
from tests.helpers.passes import tapped

SQUARED = dict(type='SquaredError')
KEY = 'model.objectives.a'


def features(**shapes):
    return tapped({tap: [torch.randn(shape) for shape in of_tap] for tap, of_tap in shapes.items()})


def prepared(student, *teachers, taps=('a',), **options):
    objective = FeatureMatch(list(taps), SQUARED, **options)
    objective.prepare(student, teachers, KEY)
    return objective


# --- tap pairs -------------------------------------------------------------------------------


@pytest.mark.parametrize('entry, pair', [
    ('neck[1:]', ('neck[1:]', 'neck[1:]')),
    (dict(student='a', teacher='b:in'), ('a', 'b:in')),
    (dict(student='a', teacher='b', _scope_='mmdet'), ('a', 'b'))])
def test_tap_pairs(entry, pair):
    assert tuple(tap.text for tap in TapPair.parse(entry)) == pair


@pytest.mark.parametrize('entry, error, words', [
    (dict(student='a'), ValueError, "got the keys ['student']"),
    (dict(), ValueError, 'got the keys []'),
    (dict(student='a', teacher='b[', ), ValueError, "'b[' is an invalid tap"),
    (dict(student='a', teacher=2), TypeError, 'got 2'),
    (['a', 'b'], TypeError, 'a tap is a string')])
def test_no_tap_pairs(entry, error, words):
    with pytest.raises(error) as caught:
        TapPair.parse(entry)
    assert words in str(caught.value)


# --- what every objective has ----------------------------------------------------------------


def test_which_teachers_are_read():
    assert FeatureMatch(['a'], SQUARED).teachers_read(3) == [0, 1, 2]
    assert FeatureMatch(['a'], SQUARED, teacher=2).teachers_read(3) == [2]
    for position in (3, -1):
        with pytest.raises(ValueError, match=f'there is no teacher {position}; there are 3, counted from 0'):
            FeatureMatch(['a'], SQUARED, teacher=position).teachers_read(3)


def test_it_is_on_at_first():
    objective = FeatureMatch(['a'], SQUARED)
    assert isinstance(objective, Objective) and objective.weight == 1


# --- feature match ---------------------------------------------------------------------------


def test_one_loss_per_feature_in_the_order_of_the_taps():
    student = features(a=[(1, 8, 4, 4), (1, 8, 2, 2)], b=[(1, 4, 8, 8)])
    objective = prepared(student, student, taps=('a', 'b'))
    zero = tapped({tap: [torch.zeros_like(t) for t in tensors] for tap, tensors in student.features.items()})
    losses = objective(student, [zero])
    assert list(losses) == ['loss_0', 'loss_1', 'loss_2']
    for value, feature in zip(losses.values(), [*student['a'], *student['b']]):
        torch.testing.assert_close(value, feature.square().sum())


@pytest.mark.parametrize('value', [1e30, float('inf'), float('nan')])
def test_features_of_parameters_that_are_not_initialised_yet_are_no_reason_to_refuse_a_loss(value):
    student = tapped(dict(a=[torch.full((1, 8, 4, 4), value)]))
    ordinary = features(a=[(1, 8, 4, 4)])
    assert prepared(student, ordinary)(ordinary, [ordinary])['loss_0'] == 0


def test_teacher_by_teacher():
    student, first, second = (features(a=[(1, width, 4, 4)], b=[(1, width + 1, 2, 2)]) for width in (8, 12, 16))
    objective = prepared(student, first, second, taps=('a', 'b'), connector=dict(type='Conv1x1'))
    widths = [tuple(c.weight.shape[:2]) for c in objective.connectors]
    assert widths == [(12, 8), (13, 9), (16, 8), (17, 9)]
    losses = objective(student, [first, second])
    pairs = [(student[tap][0], target[tap][0]) for target in (first, second) for tap in 'ab']
    for i, ((feature, target), connector) in enumerate(zip(pairs, objective.connectors)):
        torch.testing.assert_close(losses[f'loss_{i}'], (connector(feature) - target).square().sum())


def test_connectors_are_not_shared():
    student, target = features(a=[(1, 8, 4, 4)] * 2), features(a=[(1, 8, 4, 4)] * 2)
    objective = prepared(student, target, connector=dict(type='Conv1x1'))
    first, second = objective.connectors
    assert first is not second and not torch.equal(first.weight, second.weight)
    assert [name for name, _ in objective.named_parameters()] == [
        'connectors.0.weight', 'connectors.0.bias', 'connectors.1.weight', 'connectors.1.bias']


def test_the_loss_is_built_once_and_any_module_will_do():
    objective = FeatureMatch(['a'], dict(type=nn.L1Loss, reduction='sum'))
    student, target = features(a=[(1, 8, 4, 4)]), features(a=[(1, 8, 4, 4)])
    objective.prepare(student, [target], KEY)
    expected = (student['a'][0] - target['a'][0]).abs().sum()
    torch.testing.assert_close(objective(student, [target]), dict(loss_0=expected))


def test_tokens_and_vectors_and_maps():
    student = features(a=[(1, 16, 8)], v=[(1, 5)])
    target = features(m=[(1, 8, 4, 4)], v=[(1, 5)])
    objective = prepared(student, target, taps=[dict(student='a', teacher='m'), 'v'])
    tokens = torch.randn(2, 16, 8)
    map_ = tokens.transpose(1, 2).reshape(2, 8, 4, 4)
    vector = torch.randn(2, 5)
    losses = objective(tapped(dict(a=[tokens], v=[vector])), [tapped(dict(m=[map_], v=[vector]))])
    assert losses['loss_0'] == 0 and losses['loss_1'] == 0


@pytest.mark.parametrize('student, teacher', [((4, 4), (8, 8)), ((8, 8), (3, 5)), ((7, 9), (7, 9))])
def test_the_student_takes_the_teachers_size(student, teacher):
    small, large = features(a=[(1, 2, *student)]), features(a=[(1, 2, *teacher)])
    seen = []
    objective = prepared(small, large)
    objective.loss.register_forward_hook(lambda m, args, out: seen.extend(args))
    objective(small, [large])
    assert seen[0].shape == seen[1].shape == (1, 2, *teacher)
    assert seen[1] is large['a'][0], 'the target is not resized'
    if student == teacher:
        assert seen[0] is small['a'][0]


@pytest.mark.parametrize('student, teacher, options, words', [
    (dict(a=[(1, 8, 4, 4)]), dict(a=[(1, 9, 4, 4)]), {}, [f'{KEY}.connector: ', '8 channels', '9']),
    (dict(a=[(1, 8, 4, 4)] * 3), dict(a=[(1, 8, 4, 4)] * 2), {},
     [f'{KEY}.taps: ', "student's 'a' gives features of stride unknown, unknown, unknown", "student='a[0]'"]),
    (dict(a=[(7, 8)]), dict(a=[(7, 8)]), {}, [f'{KEY}.taps: a tap gives 7 rows for one image']),
    (dict(a=[(1, 8)]), dict(a=[(7, 8)]), {}, [f'{KEY}.taps: a tap gives 7 rows for one image']),
    (dict(a=[(1, 5, 8)]), dict(a=[(1, 6, 8)]), {}, [f'{KEY}.taps: ', 'student has 5 and the teacher 6 positions']),
    (dict(a=[(1,)]), dict(a=[(1,)]), {}, [f'{KEY}.taps: ', 'got (1,)']),
    (dict(a=[(1, 8, 4, 4)]), dict(a=[(1, 8, 4, 4)]), dict(connector=dict(type='Nothing')), [f'{KEY}.connector.type: ']),
])
def test_features_that_cannot_be_matched(student, teacher, options, words):
    with pytest.raises(ConfigError) as error:
        prepared(features(**student), features(**teacher), **options)
    assert str(error.value).startswith(words[0])
    assert all(word in str(error.value) for word in words), error.value


def test_no_gradient_to_the_teacher():
    student, target = features(a=[(1, 8, 4, 4)]), features(a=[(1, 8, 4, 4)])
    for tensors in (student, target):
        tensors['a'][0].requires_grad_()
    sum(prepared(student, target)(student, [target]).values()).backward()
    assert student['a'][0].grad is not None and target['a'][0].grad is None


# --- what cannot be compared is found before training ------------------------------------------


def test_widths_that_no_connector_brings_together():
    with pytest.raises(ConfigError, match=r'^model\.objectives\.a\.connector: .*has 6 channels and the teacher feature '
                                          r"10; use connector=dict\(type='Conv1x1'\)"):
        prepared(features(a=[(1, 6, 4, 4)]), features(a=[(1, 10, 4, 4)]))


def test_a_loss_that_refuses_the_features():
    objective = FeatureMatch(['a'], dict(type='KLDivergence', tau=0))
    with pytest.raises(ConfigError, match=r'^model\.objectives\.a\.loss: tau must be positive'):
        objective.prepare(features(a=[(1, 6)]), [features(a=[(1, 6)])], KEY)
