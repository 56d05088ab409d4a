import pytest

from mmfeatdistill.errors import ConfigError, config_key, did_you_mean


@pytest.mark.parametrize('error', [ValueError, TypeError, KeyError, ImportError, OSError, FileNotFoundError])
def test_errors_of_a_part_name_its_key(error):
    with pytest.raises(ConfigError) as caught:
        with config_key('model.teacher'):
            raise error('this is wrong.')
    assert str(caught.value) == 'model.teacher: this is wrong.'
    assert isinstance(caught.value.__cause__, error)


def test_the_innermost_key_stays():
    with pytest.raises(ConfigError, match='^model.teacher.checkpoint: lost.$'):
        with config_key('model'), config_key('model.teacher'), config_key('model.teacher.checkpoint'):
            raise ValueError('lost.')


def test_a_config_error_is_a_value_error():
    assert issubclass(ConfigError, ValueError)


def test_interrupts_and_bugs_pass():
    for error in (KeyboardInterrupt, ZeroDivisionError):
        with pytest.raises(error):
            with config_key('model'):
                raise error


def test_did_you_mean():
    assert did_you_mean('nek', ['neck', 'backbone']) == ". Did you mean 'neck'?"
    assert did_you_mean('layer', ['layer1', 'layer2', 'layer3', 'layer4']).count(' or ') == 2, 'three at most'
    assert did_you_mean('zzz', ['neck']) == '.'
    assert did_you_mean('zzz', []) == '.'
