"""Whatever is drawn is either trained on or refused with a clear error: no example may end otherwise.

Losses, connectors and objectives are found in the registry and their options in their signatures, so what is registered
later is drawn too. The examples are the same in every run.
"""
import inspect
import math
import re
from typing import Literal, Union, get_args, get_origin

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.utils import digit_version

from mmfeatdistill import connectors, losses, objectives
from mmfeatdistill.distillers import FeatureDistiller
from mmfeatdistill.errors import ConfigError, config_key
from mmfeatdistill.objectives import Objective
from mmfeatdistill.registry import MODELS
from mmfeatdistill.registry import build as build_part
from tests.helpers.models import build, classification_batch, classifier, detection_batch, detector, losses_of, teacher
from tests.helpers.passes import tapped

KEY = 'model.objectives.o'
# torch 2.1 lacks many operations in float16 on a CPU.
HALVES = [torch.float16] if digit_version(torch.__version__) >= digit_version('2.2') else []
DTYPES = [torch.float32, *HALVES, torch.bfloat16, torch.float64, torch.int64]
UNCLEAR = re.compile(
    r'not supported between|unsupported operand|object has no|object is not|NoneType|positional argument|'
    r'invalid combination|must match|converted to an index|'
    r'\b(Runtime|Key|Index|Attribute|ZeroDivision|Assertion|Overflow|NotImplemented)Error\b')
"""What Python and torch say of a mistake that they do not know."""


def registered(room):
    """The classes of a room of the registry by name."""
    return {name: cls for name, cls in MODELS.module_dict.items()
            if cls.__module__.startswith(f'{room.__name__}.') and cls.__name__ == name}


LOSSES, CONNECTORS = registered(losses), registered(connectors)
OBJECTIVES = {name: cls for name, cls in registered(objectives).items() if issubclass(cls, Objective)}
WRONG = [None, 'x', '0.5', -1, 0, True, math.nan, math.inf, 1e-45, 2**70, [1], {}, 'positions']


def right_values(parameter):
    """Values that fit the annotation of an option, its default first."""
    known = {float: [1.0, 0.5, 2], int: [1, 3], bool: [True, False], type(None): [None], str: ['neck', 'channels']}
    default = [] if parameter.default is inspect.Parameter.empty else [parameter.default]

    def of(annotation):
        if get_origin(annotation) is Literal:
            return list(get_args(annotation))
        parts = get_args(annotation) if get_origin(annotation) is Union else [annotation]
        return [value for part in parts for value in known.get(part, [])]

    return default + of(parameter.annotation)


@st.composite
def parts(draw, classes, found=(), **strategies):
    """A config of one of some classes, most of them right but for one option at most."""
    name = draw(st.sampled_from(sorted(classes)))
    signature = inspect.signature(classes[name]).parameters
    free = [option for option in signature if option not in found]
    wrong = draw(st.sampled_from(free)) if free and draw(st.integers(0, 4)) == 4 else None
    cfg = dict(type=name)
    for option in free:
        parameter = signature[option]
        if option == wrong:
            cfg[option] = draw(st.sampled_from(WRONG))
        elif option in strategies:
            cfg[option] = draw(strategies[option])
        elif parameter.default is inspect.Parameter.empty or draw(st.booleans()):
            cfg[option] = draw(st.sampled_from(right_values(parameter) or [None]))
    return cfg


connector_configs = st.none() | parts(CONNECTORS, found=('student_shape', 'teacher_shape'))


@st.composite
def shapes_of_a_pair(draw):
    """The shapes of two features of one image, most of them of the same kind."""
    ranks = st.sampled_from([4, 2, 3, 4, 4, 2, 3, 4, 1, 5])
    rank = draw(ranks)
    return [(1, *draw(st.lists(st.integers(1, 5), min_size=size - 1, max_size=size - 1)))
            for size in (rank, draw(st.just(rank) | st.just(rank) | ranks))]


def clear(error):
    """A refusal names the key, and is in our own words."""
    assert str(error).startswith(KEY), error
    assert not UNCLEAR.search(str(error)), error


def feature(shape, dtype, wants_grad=False):
    values = torch.randn(shape).to(dtype)
    return values.requires_grad_(wants_grad and values.is_floating_point())


def reading(*tensors):
    return tapped({'here': list(tensors)})


def check_matching(shapes, dtypes, loss, connector, batch):
    """Whether a pair is trained on; everything but a loss or a clear refusal fails."""
    torch.manual_seed(0)
    student_shape, teacher_shape = shapes
    first, second = feature(student_shape, dtypes[0]), feature(teacher_shape, dtypes[1])
    try:
        objective = build_part(dict(type='FeatureMatch', taps=['here'], loss=loss, connector=connector), KEY)
        objective.prepare(reading(first), [reading(second)], KEY)
        student = feature((batch, *student_shape[1:]), dtypes[0], wants_grad=True)
        target = feature((batch, *teacher_shape[1:]), dtypes[1], wants_grad=True)
        with config_key(KEY):
            losses = objective(reading(student), [reading(target)])
    except ConfigError as error:
        if 'Expected more than 1 value per channel' in str(error):
            assert batch == 1 and str(error).startswith(KEY)
        else:
            clear(error)
        return False
    (value,) = losses.values()
    assert value.shape == () and value.isfinite()
    assert torch.finfo(value.dtype).bits >= 32
    value.backward()
    assert student.grad is not None and student.grad.isfinite().all()
    assert target.grad is None
    return True


def share_trained_on(check, count, **strategies):
    """Checks so many examples; the share of them that were not refused."""
    trained = []

    @given(**strategies)
    @settings(max_examples=count, derandomize=True, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))
    def examples(**drawn):
        trained.append(check(**drawn))

    examples()
    return sum(trained) / len(trained)


@pytest.mark.parametrize('count', [pytest.param(250, id='some'), pytest.param(3000, id='many', marks=pytest.mark.slow)])
def test_features_are_matched_or_refused(count):
    dtypes = st.sampled_from([torch.float32, torch.float32, *DTYPES])
    assert share_trained_on(
        check_matching, count, shapes=shapes_of_a_pair() | shapes_of_a_pair().map(lambda pair: pair[:1] * 2),
        dtypes=st.tuples(dtypes, dtypes) | st.just((torch.float32,) * 2), loss=parts(LOSSES),
        connector=connector_configs, batch=st.integers(0, 4)) > 0.2


NETWORKS = dict(classifier=(classifier, classification_batch), detector=(detector, detection_batch))
PATHS = {kind: [name for name, _ in build(make()).named_modules() if name] for kind, (make, _) in NETWORKS.items()}
PLACES = dict(
    classifier=['backbone', 'neck', 'head.fc', 'head.fc:in', *(f'backbone.layer{i}:pre' for i in (1, 2, 3, 4))],
    detector=['neck', 'neck[:4]', 'backbone', 'backbone.layer4', 'roi_head.bbox_head.fc_cls:in'])
SIDES = ['', '', ':in', ':pre', ':each', ':out', ':in:pre', ':']
ITEMS = ['', '', '', '[0]', '[-1]', '[1:]', '[:2]', '[:]', '[5]', '[::2]', '[a]', '[]', '[', f'[{10**20}]']


@st.composite
def taps(draw, kind):
    """A tap that is right, nearly right or anything."""
    if not draw(st.integers(0, 9)):
        return draw(st.text('abcknebo._:[]0 -\n', max_size=8))
    path = draw(st.sampled_from(PATHS[kind]))
    if not draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(path) - 1))
        path = path[:at] + draw(st.sampled_from(['', '.', 'x', path[at].upper(), ' '])) + path[at + 1:]
    return path + draw(st.sampled_from(SIDES)) + draw(st.sampled_from(ITEMS))


def pairs(kind):
    return st.builds(dict, student=taps(kind), teacher=taps(kind)) | taps(kind) | st.sampled_from(PLACES[kind])


def check_training(kind, objective):
    """Whether an objective trains; everything but losses or a clear refusal fails."""
    torch.manual_seed(0)
    make, batch = NETWORKS[kind]
    try:
        model = FeatureDistiller(make(), teacher(make(16)), dict(o=objective)).train()
        data = model.data_preprocessor(batch(), training=True)
        wanting = model.images_wanted()
        model.update_statistics(data['inputs'], data['data_samples'], wanting)
        model.finish_statistics(wanting)
        logged = losses_of(model, batch())
    except ConfigError as error:
        clear(error)
        return False
    except RuntimeError as error:  # of what only a training step shows
        assert re.match(rf"{KEY}.taps: no gradient reaches|student: '|student: the tapped tensor", str(error)), error
        return False
    added = [value for name, value in logged.items() if name.startswith('o.loss')]
    assert added and all(value.isfinite() and value.dtype == torch.float32 for value in added), logged
    sum(added).backward()
    assert all(parameter.grad is None for parameter in model.teachers[0].model.parameters())
    grads = [parameter.grad for parameter in model.student.parameters() if parameter.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)
    return True


def counts(some):
    return pytest.mark.parametrize('kind, count', [
        pytest.param('classifier', some, id='classifier'),
        pytest.param('classifier', 70, id='classifier, many', marks=pytest.mark.slow),
        pytest.param('detector', 20, id='detector', marks=pytest.mark.slow)])


@counts(35)
def test_taps_are_read_or_refused(kind, count):
    objective = st.builds(dict, type=st.just('FeatureMatch'), taps=pairs(kind).map(lambda entry: [entry]),
                          connector=connector_configs | st.just(dict(type='Conv1x1')),
                          loss=parts(LOSSES) | st.just(dict(type='SquaredError')))
    assert share_trained_on(check_training, count, kind=st.just(kind), objective=objective) > 0.02


@counts(15)
def test_objectives_train_or_are_refused(kind, count):
    places = st.sampled_from(PLACES[kind])
    together = st.sampled_from([PLACES[kind][-4:], PLACES[kind][:1]])
    objective = parts(
        OBJECTIVES, taps=together | st.lists(places, min_size=1, max_size=3),
        output=places | st.just('head.fc'), classifier=st.none() | st.just('head.fc'), loss=parts(LOSSES),
        connector=connector_configs | st.just(dict(type='Conv1x1')), teacher=st.none() | st.just(0))
    assert share_trained_on(check_training, count, kind=st.just(kind), objective=objective) > 0.02


def test_all_that_is_registered_is_drawn():
    assert {'SquaredError', 'DIST'} <= {*LOSSES} and {'Identity', 'Bridge'} <= {*CONNECTORS}
    assert {cls for cls in vars(objectives).values() if inspect.isclass(cls) and issubclass(cls, Objective)} == {
        *OBJECTIVES.values(), Objective}
