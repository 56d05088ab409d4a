import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine import registry as root
from mmengine.registry import DefaultScope
from torch import nn

from mmfeatdistill import backbones, connectors, distillers, losses, objectives
from mmfeatdistill.engine import hooks
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.registry import HOOKS, MODELS, build, check_options
from mmfeatdistill.taps.feature_map import FeatureShape
from mmfeatdistill.teacher import sources
from tests.helpers.models import classifier, detector, segmenter

# The names that other libraries and papers have for what is registered here under its own.
ALIASES = {
    'ABLoss': 'ActivationBoundary', 'ATLoss': 'AttentionTransfer', 'AngleWiseRKD': 'RelationalAngle',
    'AttnFD': 'AttentionGuided',
    'CWDLoss': 'ChannelWiseDivergence', 'DISTLoss': 'DIST', 'DKD': 'Decoupled', 'DKDLoss': 'Decoupled',
    'DistanceWiseRKD': 'RelationalDistance', 'FTLoss': 'FactorTransfer', 'HCL': 'HierarchicalContext',
    'KDLoss': 'KLDivergence', 'PKDLoss': 'Pearson'}
SHAPES = dict(student_shape=FeatureShape(8, 4, 4), teacher_shape=FeatureShape(16, 4, 4))


@pytest.mark.parametrize('scope', [None, 'mmdet', 'mmseg', 'mmpretrain', 'mmengine'])
def test_found_by_name_from_any_scope(scope):
    if scope:
        DefaultScope.get_instance('test', scope_name=scope)
    assert root.MODELS.get('mmfeatdistill.FeatureDistiller') is distillers.FeatureDistiller
    assert root.HOOKS.get('mmfeatdistill.StudentCheckpointHook') is hooks.StudentCheckpointHook
    loss = build(dict(type='SquaredError', loss_weight=3.), 'key')
    assert isinstance(loss, losses.SquaredError) and loss.loss_weight == 3
    assert DefaultScope.get_current_instance() is None or DefaultScope.get_current_instance().scope_name == scope


@pytest.mark.parametrize('registry, rooms', [
    (MODELS, (losses, connectors, objectives, distillers, backbones, sources)), (HOOKS, (hooks,))])
def test_everything_public_is_registered_under_its_own_name(registry, rooms):
    registry.get('nothing')  # imports the rooms
    ours = {name: cls for name, cls in registry.module_dict.items() if not cls.__module__.startswith('tests.')}
    for name, cls in ours.items():
        room = next(room for room in rooms if cls.__module__.startswith(room.__name__ + '.'))
        assert getattr(room, cls.__name__) is cls and cls.__name__ in room.__all__
        assert cls.__name__ == name or ALIASES[name] == cls.__name__
        assert ours[cls.__name__] is cls


@pytest.mark.parametrize('alias, name', ALIASES.items())
def test_a_name_that_users_search_for_is_the_same_class(alias, name):
    assert MODELS.get(alias) is MODELS.get(name) is root.MODELS.get(f'mmfeatdistill.{alias}')
    assert f'`{alias}`' in (Path(__file__).parents[1] / 'docs' / 'methods.md').read_text()


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
@pytest.mark.parametrize('prefix', ['', 'mmfeatdistill.'])
def test_hooks_objectives_losses_and_connectors_are_written_with_or_without_scope(scope, prefix):
    DefaultScope.get_instance('test', scope_name=scope)
    schedule = root.HOOKS.build(dict(type=f'{prefix}ObjectiveScheduleHook', objective='fpn', warmup=2))
    assert isinstance(schedule, hooks.ObjectiveScheduleHook)
    model = build_distiller(scope, dict(
        type=f'{prefix}FeatureMatch', taps=['backbone'], connector=dict(type=f'{prefix}Conv1x1'),
        loss=dict(type=f'{prefix}SquaredError')))
    match = model.objectives['match']
    assert isinstance(match, objectives.FeatureMatch) and isinstance(match.loss, losses.SquaredError)
    assert {type(connector) for connector in match.connectors} == {connectors.Conv1x1}


def build_distiller(scope, objective):
    student = dict(mmdet=detector, mmseg=segmenter, mmpretrain=classifier)[scope]
    return root.MODELS.build(dict(
        type='mmfeatdistill.FeatureDistiller', student=student(), objectives=dict(match=objective),
        teacher=dict(model=student(16), checkpoint=None)))


def test_hooks_without_scope_are_found_once_the_distiller_is():
    """In the order of a runner, in a process that has imported nothing of this project."""
    code = """if True:
        from mmengine.registry import HOOKS, MODELS, init_default_scope
        for scope in ('mmdet', 'mmseg', 'mmpretrain'):
            init_default_scope(scope)
            with HOOKS.switch_scope_and_registry(None) as registry:
                assert scope != 'mmdet' or registry.get('ObjectiveScheduleHook') is None
            assert MODELS.get('mmfeatdistill.FeatureDistiller')
            assert type(HOOKS.build(dict(type='StudentCheckpointHook'))).__module__.startswith('mmfeatdistill.')
    """
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_hook_of_a_library_or_of_mmengine_keeps_its_name():
    class Ours:
        pass

    theirs = root.HOOKS.get('EMAHook')
    try:
        HOOKS.register_module(name='EMAHook', module=Ours)
        assert root.HOOKS.get('EMAHook') is theirs and root.HOOKS.get('mmfeatdistill.EMAHook') is Ours
    finally:
        del HOOKS._module_dict['EMAHook']


@pytest.mark.parametrize('cfg, words', [
    (None, ["key: expected a dict with a 'type', got None"]),
    ('SquaredError', ["expected a dict with a 'type', got 'SquaredError'"]),
    (dict(loss_weight=1.), ["expected a dict with a 'type'"]),
    (dict(type='SquareError'), ["key.type: there is no 'SquareError'", "Did you mean 'SquaredError'?",
                                "as in 'mmdet.MyLoss'"]),
    (dict(type='PDKLoss'), ["key.type: there is no 'PDKLoss'", "Did you mean 'PKDLoss'"]),
    (dict(type='mmdet.NoSuchLoss'), ["key.type: there is no 'mmdet.NoSuchLoss'"]),
    (dict(type='mmyolo.SomeLoss'), ["key.type: there is no 'mmyolo.SomeLoss'"]),
    (dict(type='SquaredError', weight=2.), ["key.weight: there is no such option", "Did you mean 'loss_weight'?"]),
    (dict(type=3), ["key.type: expected the name of a class, such as 'SquaredError', got 3"])])
def test_what_cannot_be_built(cfg, words):
    with pytest.raises(ConfigError) as caught:
        build(cfg, 'key')
    assert str(caught.value).startswith('key')
    assert all(word in str(caught.value) for word in words), caught.value


def test_where_there_is_no_option_what_is_found_is_named():
    with pytest.raises(ConfigError, match=r'^key.in_channels: there is no such option; it takes none, remove it '
                                          r'\(.*: inferred\)\.$'):
        build(dict(type='Conv1x1', in_channels=64), 'key', **SHAPES)


def test_found_arguments_are_not_for_the_user():
    with pytest.raises(ConfigError, match=r'key.student_shape: is inferred; remove it'):
        build(dict(type='ChannelMLP', student_shape=(1, 2, 3)), 'key', **SHAPES)


def test_what_a_class_refuses_names_the_key():
    with pytest.raises(ConfigError, match=r'key: .*hidden_channels: expected a positive integer, got 0'):
        build(dict(type='ChannelMLP', hidden_channels=0), 'key', **SHAPES)


def test_missing_arguments():
    with pytest.raises(ConfigError, match=r"key: needs 'loss', which is missing; got \['taps'\]"):
        build(dict(type='FeatureMatch', taps=['neck']), 'key')


def test_classes_of_other_libraries():
    built = build(dict(type='mmdet.L1Loss', loss_weight=2.), 'key')
    assert type(built).__module__.startswith('mmdet.') and built.loss_weight == 2


def test_classes_in_place_of_names():
    assert isinstance(build(dict(type=nn.MSELoss), 'key'), nn.MSELoss)


def test_what_a_class_builds_is_looked_up_here_first():
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.loss = root.MODELS.build(dict(type='SquaredError'))

    DefaultScope.get_instance('test', scope_name='mmdet')
    assert isinstance(build(dict(type=Wrapper), 'key').loss, losses.SquaredError)


def test_the_config_is_not_changed():
    cfg = dict(type='SquaredError', loss_weight=2.)
    build(cfg, 'key')
    assert cfg == dict(type='SquaredError', loss_weight=2.)


def test_options_of_functions_that_take_anything():
    def takes_anything(first, **options):
        pass

    check_options(inspect.signature(takes_anything), dict(first=1, other=2), 'key')
    with pytest.raises(ConfigError, match="key: needs 'first'"):
        check_options(inspect.signature(takes_anything), dict(other=2), 'key')
