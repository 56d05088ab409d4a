import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn

from mmfeatdistill.taps.reader import TapReader
from mmfeatdistill.taps.tap import Tap, TapsNotReached
from tests.helpers.models import (
    build,
    classification_batch,
    classifier,
    count_calls,
    detection_batch,
    detector,
    segmenter,
)


class Pyramid(nn.Module):
    """Gives a tuple, and calls one of its modules three times."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.shared = nn.Conv2d(4, 4, 1)
        self.last = nn.Identity()

    def forward(self, x):
        x = self.stem(x)
        maps = tuple(self.shared(x[..., ::2 ** i]) for i in range(3))
        return self.last(maps)


def inputs_of(model, *sizes):
    """A preprocessed batch for a detector or classifier."""
    batch = detection_batch(*sizes) if hasattr(model, 'rpn_head') else classification_batch(*sizes)
    return model.data_preprocessor(batch, training=True)['inputs']


def read(model, taps, run):
    reader = TapReader(model, taps, 'student')
    reader.probe(run)
    return reader.read(run)


# --- grammar ---------------------------------------------------------------------------------


@pytest.mark.parametrize('text, path, is_input, items', [
    ('neck', 'neck', False, slice(None)),
    ('backbone.layer4.1.relu:in', 'backbone.layer4.1.relu', True, slice(None)),
    ('neck[0]', 'neck', False, 0),
    ('neck[-1]', 'neck', False, -1),
    ('neck[1:4]', 'neck', False, slice(1, 4)),
    ('neck[:-1]', 'neck', False, slice(None, -1)),
    ('neck[2:]', 'neck', False, slice(2, None)),
    ('neck[:]', 'neck', False, slice(None)),
    ('neck:in[0]', 'neck', True, 0),
])
def test_grammar(text, path, is_input, items):
    tap = Tap.parse(text)
    assert (tap.text, *tap.place, tap.items) == (text, path, is_input, items)


@pytest.mark.parametrize('text', [
    '', '.neck', 'neck.', 'a..b', 'neck[', 'neck[]', 'neck[a]', 'neck[0][1]', 'neck[1:2:3]', 'neck[0]:in', 'neck:out',
    'neck in', ' neck', 'neck[1.5]'])
def test_what_is_no_tap(text):
    with pytest.raises(ValueError, match='is an invalid tap; write'):
        Tap.parse(text)


@pytest.mark.parametrize('text', [None, 3, ['neck']])
def test_a_tap_is_a_string(text):
    with pytest.raises(TypeError, match='a tap is a string'):
        Tap.parse(text)


@pytest.mark.parametrize('tap, wanted', [
    ('last', [0, 1, 2]), ('last[1]', [1]), ('last[-1]', [2]), ('last[1:]', [1, 2]), ('last[:-1]', [0, 1]),
    ('last:in', [0, 1, 2]), ('last:in[0]', [0]), ('last:in[-2:]', [1, 2])])
def test_items_of_a_tuple(tap, wanted):
    model, image = Pyramid(), torch.randn(2, 3, 4, 8)
    features, output = read(model, [tap], lambda: model(image))
    assert len(features[tap]) == len(wanted)
    for feature, index in zip(features[tap], wanted):
        assert feature is output[index]


def test_the_last_call_counts():
    model, image = Pyramid(), torch.randn(2, 3, 4, 8)
    features, output = read(model, ['shared', 'shared:in'], lambda: model(image))
    assert features['shared'][0] is output[2]
    assert features['shared:in'][0].shape == (2, 4, 4, 2)


def test_the_last_call_counts_when_the_pass_ends_early():
    model, image = Pyramid(), torch.randn(2, 3, 4, 8)
    after = count_calls(model.last)
    reader = TapReader(model, ['shared'], 'teacher')
    reader.probe(lambda: model(image))
    after.clear()
    (feature,) = reader.read_until_complete(lambda: model(image))['shared']
    torch.testing.assert_close(feature, model(image)[2])
    assert len(after) == 1, 'only by the plain pass of the line above'


@pytest.mark.parametrize('tap', ['last[3]', 'last[-4]', 'last[3:]', 'last[1:1]'])
def test_selecting_nothing_is_an_error(tap):
    model = Pyramid()
    with pytest.raises(ValueError, match=r"selects none of the 3 feature\(s\) that 'last' gives"):
        TapReader(model, [tap], 'student').probe(lambda: model(torch.randn(1, 3, 4, 8)))


def test_dicts_and_nests_are_flattened_in_order():
    class Nest(nn.Module):
        def forward(self, x):
            return dict(a=(x, [x + 1]), b=None, c=x + 2)

    model = nn.Sequential(Nest())
    features, output = read(model, ['0'], lambda: model(torch.zeros(1)))
    assert [feature.item() for feature in features['0']] == [0, 1, 2]
    assert set(output) == {'a', 'b', 'c'}


def test_keyword_arguments_are_inputs_too():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Identity()
            self.inner.forward = lambda *, x: x

        def forward(self, x):
            return self.inner(x=x)

    model, x = Outer(), torch.zeros(1)
    features, _ = read(model, ['inner:in'], lambda: model(x))
    assert features['inner:in'][0] is x


# --- real models -----------------------------------------------------------------------------


def test_detector_taps_are_what_its_modules_give():
    model = build(detector()).eval()
    inputs = inputs_of(model)
    with torch.no_grad():
        stages = model.backbone(inputs)
        pyramid = model.neck(stages)
        features, _ = read(model, ['neck', 'neck[1:4]', 'neck[-1]', 'backbone', 'backbone.layer4', 'neck:in',
                                   'neck.fpn_convs.0.conv'], lambda: model.extract_feat(inputs))
    assert len(features['neck']) == 5 and len(features['backbone']) == 4
    for got, wanted in [(features['neck'], pyramid), (features['neck[1:4]'], pyramid[1:4]),
                        (features['neck[-1]'], pyramid[-1:]), (features['backbone'], stages),
                        (features['backbone.layer4'], stages[-1:]), (features['neck:in'], stages),
                        (features['neck.fpn_convs.0.conv'], pyramid[:1])]:
        assert len(got) == len(wanted)
        assert all(torch.equal(a, b) for a, b in zip(got, wanted))


def test_a_head_whose_forward_is_called_directly():
    model = build(segmenter()).eval()
    image = torch.randn(1, 3, 64, 64)
    hooked = count_calls(model.decode_head)
    with torch.no_grad():
        features, output = read(model, ['decode_head', 'decode_head.conv_seg'],
                                lambda: model(image, mode='tensor'))
    assert not hooked, 'mmseg began to call the head as a module; this test has lost its point'
    assert torch.equal(features['decode_head'][0], output)
    assert torch.equal(features['decode_head.conv_seg'][0], output)


# --- what is overwritten in place ------------------------------------------------------------


def without_inplace(model):
    """A copy that computes the same without writing into anything."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
        if type(module).__name__ == 'BasicBlock':
            module.forward = partial(plain_block, module)
    return model


def plain_block(block, x):
    out = block.norm2(block.conv2(block.relu(block.norm1(block.conv1(x)))))
    identity = x if block.downsample is None else block.downsample(x)
    return block.relu(out + identity)


def pass_with_hook(model, tap, inputs):
    """The tapped tensor and the output by a plain hook, which is right where nothing is overwritten."""
    seen = []
    module = model.get_submodule(tap.removesuffix(':in'))
    if tap.endswith(':in'):
        handle = module.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    else:
        handle = module.register_forward_hook(lambda m, args, output: seen.append(output))
    output = model.extract_feat(inputs)
    handle.remove()
    return seen[-1], output


@pytest.mark.parametrize('tap', [
    'backbone.layer2.0.bn1',        # an in-place ReLU comes after it
    'backbone.layer2.0.bn2',        # the residual is added to it in place
    'backbone.layer2.0.relu:in',    # of its second call: the sum, which the ReLU overwrites
    'backbone.layer2'])             # nothing overwrites it
@pytest.mark.parametrize('make', [detector, classifier])
def test_overwritten_values_and_their_gradients(make, tap):
    model = build(make()).train()
    inputs = inputs_of(model)
    plain = without_inplace(model)
    reader = TapReader(model, [tap], 'student')
    with torch.no_grad():
        probed = reader.probe(lambda: model.extract_feat(inputs))

    features, output = reader.read(lambda: model.extract_feat(inputs))
    expected, expected_output = pass_with_hook(plain, tap, inputs)
    torch.testing.assert_close(features[tap][0], expected)
    torch.testing.assert_close(probed[tap][0], expected)
    torch.testing.assert_close(output, expected_output)
    if tap != 'backbone.layer2':
        assert (expected < 0).any(), 'a pre-activation has negative values'

    (features[tap][0].square().mean() + output[-1].mean()).backward()
    (expected.square().mean() + expected_output[-1].mean()).backward()
    for (name, got), right in zip(model.named_parameters(), plain.parameters()):
        assert (got.grad is None) == (right.grad is None), name
        if right.grad is not None:
            torch.testing.assert_close(got.grad, right.grad, msg=lambda text, name=name: f'{name}: {text}')
    assert model.backbone.conv1.weight.grad.abs().sum() > 0


def test_two_taps_of_one_overwritten_tensor():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(inplace=True)).eval()
    image = torch.randn(1, 3, 4, 4)
    features, output = read(model, ['0', '1:in', '1'], lambda: model(image))
    torch.testing.assert_close(features['0'], features['1:in'])
    assert (features['0'][0] < 0).any()
    torch.testing.assert_close(features['1'][0], features['0'][0].relu())
    assert features['1'][0] is output


def test_each_call_of_a_module_that_runs_several_times():
    tower = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True))
    levels = [torch.randn(2, 3, side, side) for side in (8, 4, 2)]
    taps = ['0', '0:each', '0:each[1:]', '1:each']
    features, outputs = read(tower, taps, lambda: [tower(level) for level in levels])
    expected = [tower[0](level) for level in levels]
    assert [len(features[tap]) for tap in taps] == [1, 3, 2, 3]
    for given, right in zip(features['0:each'], expected):
        torch.testing.assert_close(given, right)  # not what the ReLU makes of it
    assert features['0'][0] is features['0:each'][2] and features['0:each[1:]'][0] is features['0:each'][1]
    assert all(given is output for given, output in zip(features['1:each'], outputs))


def test_a_pass_ends_when_the_last_call_was_read():
    tower, after = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    model, image = nn.ModuleList([tower, after]), torch.randn(1, 3, 4, 4)
    reader = TapReader(model, ['0:each'], 'teacher')

    def run():
        after(tower(tower(image)))

    reader.probe(run)
    calls = count_calls(after)
    assert len(reader.read_until_complete(run)['0:each']) == 2 and not calls


def test_what_nothing_overwrites_is_not_copied():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    image = torch.randn(1, 3, 4, 4)
    features, output = read(model, ['0', '1:in', '1'], lambda: model(image))
    assert features['0'][0] is features['1:in'][0]
    assert features['1'][0] is output


@pytest.mark.parametrize('write', [
    lambda x: x.relu_(), lambda x: x[:, :1].zero_(), lambda x: x.flatten(1).mul_(2), lambda x: x.__iadd__(1)])
def test_an_overwrite_that_the_probe_could_not_see(write):
    """Through the tensor itself or a view of it."""
    layer, image = nn.Conv2d(3, 4, 1), torch.randn(1, 3, 4, 4)
    model = nn.Sequential(layer)
    reader = TapReader(model, ['0'], 'student')

    def run(overwrites):
        out = model(image)
        if overwrites:
            write(out)
        return out

    with torch.no_grad():
        reader.probe(lambda: run(False))
        reader.read(lambda: run(False))
        with pytest.raises(RuntimeError, match="student: the tapped tensor of '0' was overwritten in place"):
            reader.read(lambda: run(True))


@pytest.mark.parametrize('tap, works', [
    ('backbone.layer2.0.bn2', False), ('backbone.layer2.0', True), ('backbone.layer2.0.relu:in', True)])
def test_a_checkpointed_block_has_no_gradient_inside(tap, works):
    cfg = detector()
    cfg.backbone.with_cp = True
    model = build(cfg).train()
    inputs = inputs_of(model)
    reader = TapReader(model, [tap], 'student')
    with torch.no_grad():
        reader.probe(lambda: model.extract_feat(inputs))
        reader.read(lambda: model.extract_feat(inputs))
    if works:
        reader.read(lambda: model.extract_feat(inputs))[0][tap][0].sum().backward()
        assert model.backbone.layer2[0].conv1.weight.grad.abs().sum() > 0
    else:
        with pytest.raises(RuntimeError, match="student: 'backbone.layer2.0.bn2' runs without gradient.*with_cp"):
            reader.read(lambda: model.extract_feat(inputs))


# --- early exit ------------------------------------------------------------------------------


def test_nothing_runs_behind_the_last_tap():
    model = build(detector()).eval()
    inputs = inputs_of(model)
    calls = {name: count_calls(model.get_submodule(name)) for name in (
        'backbone.layer1', 'backbone.layer2', 'backbone.layer3', 'backbone.layer4', 'neck', 'rpn_head', 'roi_head')}
    reader = TapReader(model, ['backbone.layer2.1.bn1', 'backbone.layer1'], 'teacher')
    with torch.no_grad():
        reader.probe(lambda: model.extract_feat(inputs))
        for counted in calls.values():
            counted.clear()
        features = reader.read_until_complete(lambda: model.extract_feat(inputs))
    assert {name: len(counted) for name, counted in calls.items()} == {
        'backbone.layer1': 1, 'backbone.layer2': 0, 'backbone.layer3': 0, 'backbone.layer4': 0, 'neck': 0,
        'rpn_head': 0, 'roi_head': 0}
    assert features['backbone.layer2.1.bn1'][0].shape == (2, 16, 8, 8)


def test_an_input_tap_ends_the_pass_before_its_module():
    model, image = Pyramid(), torch.randn(1, 3, 4, 8)
    calls = count_calls(model.last)
    reader = TapReader(model, ['last:in[0]'], 'teacher')
    reader.probe(lambda: model(image))
    calls.clear()
    reader.read_until_complete(lambda: model(image))
    assert not calls


def test_no_except_clause_of_the_model_swallows_the_exit():
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x):
            try:
                return self.layer(x)
            except Exception:  # noqa: BLE001
                pytest.fail('the exit was caught')

    model = Careful()
    reader = TapReader(model, ['layer'], 'teacher')
    assert reader.read_until_complete(lambda: model(torch.ones(1)))['layer'][0] == 1


# --- nothing remains ------------------------------------------------------------------


def state(model):
    return {name: dict(vars(module)) for name, module in model.named_modules()}


def read_some(model, inputs):
    reader = TapReader(model, ['neck', 'backbone.layer1.0.bn2', 'backbone.layer1.0.relu:in'], 'student')
    with torch.no_grad():
        reader.probe(lambda: model.extract_feat(inputs))
        reader.read(lambda: model.extract_feat(inputs))
        reader.read_until_complete(lambda: model.extract_feat(inputs))


def test_the_model_is_as_it_was():
    model = build(detector()).eval()
    before = state(model)
    read_some(model, inputs_of(model))
    after = state(model)
    assert before.keys() == after.keys()
    for name in before:
        assert before[name].keys() == after[name].keys(), name
        assert all(before[name][key] is after[name][key] for key in before[name]), name
    pickle.dumps(model)
    twin = copy.deepcopy(model)
    assert twin.neck.forward.__self__ is twin.neck


@pytest.mark.parametrize('method', ['probe', 'read', 'read_until_complete', 'survey'])
def test_a_failing_pass_leaves_nothing_either(method):
    model = Pyramid()
    before = state(model)
    reader = TapReader(model, ['stem', 'shared', 'last'], 'student')
    expected = {'probe': TapsNotReached, 'survey': None}.get(method, RuntimeError)
    if expected:
        with pytest.raises(expected):
            getattr(reader, method)(lambda: model(torch.randn(1, 5, 4, 8)))  # five channels do not fit
    else:
        reader.survey(lambda: model(torch.randn(1, 5, 4, 8)))
    assert state(model) == before


def test_a_forward_of_the_instance_is_put_back():
    model = Pyramid()
    own = model.stem.forward = partial(type(model.stem).forward, model.stem)
    read(model, ['stem'], lambda: model(torch.randn(1, 3, 4, 8)))
    assert vars(model.stem)['forward'] is own


def test_modules_replaced_after_the_probe_are_found():
    model, image = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), torch.randn(2, 3, 4, 4)
    reader = TapReader(model, ['1'], 'student')
    reader.probe(lambda: model(image))
    model[1] = nn.Identity()
    features, output = reader.read(lambda: model(image))
    assert features['1'][0] is output


# --- messages --------------------------------------------------------------------------------


@pytest.mark.parametrize('tap, words', [
    ('nekc', ["student has no module 'nekc'", "Did you mean 'neck'?", 'It has: data_preprocessor, backbone, neck']),
    ('backbone.layer5', ["'backbone.layer5'", "'backbone.layer4'", "'backbone' has: conv1, bn1"]),
    ('backbone.layer4.2', ["'backbone.layer4.2'", "'backbone.layer4' has: 0, 1."]),
    ('zzz', ["has no module 'zzz'.", 'It has: '])])
def test_a_module_that_does_not_exist(tap, words):
    with pytest.raises(ValueError) as error:
        TapReader(build(detector()), [tap], 'student')
    assert all(word in str(error.value) for word in words), error.value


def test_a_module_that_does_not_run_tells_why():
    model = Pyramid()
    reader = TapReader(model, ['last'], 'teacher')
    with pytest.raises(TapsNotReached, match=r"teacher: 'last' exists but did not run in this pass \(RuntimeError: "):
        reader.probe(lambda: model(torch.randn(1, 5, 4, 8)))
    with pytest.raises(TapsNotReached, match="'last' exists but did not run in this pass."):
        reader.read(lambda: None)


def test_a_failure_behind_the_last_tap_is_of_no_concern():
    model = Pyramid()
    reader = TapReader(model, ['stem'], 'teacher')

    def run():
        model(torch.randn(1, 3, 4, 8))
        raise RuntimeError('a head that cannot take these features')

    assert reader.probe(run)['stem'][0].shape == (1, 4, 4, 8)


def test_survey_names_what_ran_in_order():
    model = Pyramid()
    reader = TapReader(model, ['last', 'shared', 'stem'], 'model')
    found, failure = reader.survey(lambda: model(torch.randn(1, 3, 4, 8)))
    assert {path: ([tuple(t.shape) for t in tensors], calls) for path, (tensors, calls) in found.items()} == {
        'stem': ([(1, 4, 4, 8)], 1), 'shared': ([(1, 4, 4, 2)], 3),
        'last': ([(1, 4, 4, 8), (1, 4, 4, 4), (1, 4, 4, 2)], 1)}
    assert list(found) == ['stem', 'shared', 'last'] and failure is None


def test_a_module_known_by_two_names_can_be_tapped_by_both():
    conv = torch.nn.Conv2d(3, 3, 1)
    model = torch.nn.Sequential(conv, torch.nn.ReLU(), conv)
    reader, image = TapReader(model, ['0', '2'], 'student'), torch.randn(1, 3, 4, 4)
    for _ in range(2):
        features, output = reader.read(lambda: model(image))
        assert features['2'][0] is output and features['0'][0] is output, 'the last call counts'
    assert 'forward' not in vars(conv)
