"""The catalog of bad inputs: each gets a message that says where, what was given and what would do.

The rows are in ``tests/bad_inputs``: configs, checkpoints, data and options of commands. Each is a name, an attempt,
and what the message must hold; it begins with the first of these, which is the config key or the option.
"""
import math

import pytest
import torch
from mmengine.registry import DefaultScope

from mmfeatdistill.distillers import FeatureDistiller
from mmfeatdistill.distillers.batch_errors import BatchError
from mmfeatdistill.errors import ConfigError
from tests.bad_inputs import checkpoints, configs, data, options
from tests.helpers.models import build, losses_of

ROWS = {f'{kind.__name__.rpartition(".")[2]}, {name}': (attempt, words)
        for kind in (configs, checkpoints, data, options) for name, attempt, words in kind.ROWS}


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """The folder with the files that rows name, and their paths by name."""
    folder = tmp_path_factory.mktemp('bad_inputs')
    checkpoints.write(folder)
    options.write(folder)
    return dict({path.name: str(path) for path in folder.iterdir()}, folder=str(folder))


def message(attempt, files, capsys):
    """What people read in the end: the text of the error, or what the command says of it."""
    try:
        attempt(files)
    except (ConfigError, BatchError) as error:
        return str(error)
    except (ValueError, RuntimeError) as error:  # of an option of a command, or of a loss in training
        assert str(error).startswith(('--', 'model.')), repr(error)
        return str(error)
    except SystemExit as error:
        told = capsys.readouterr().err.strip()
        return error.code if isinstance(error.code, str) else told.rpartition(' error: ')[2]
    pytest.fail('nothing was said')


@pytest.mark.parametrize('attempt, words', ROWS.values(), ids=ROWS)
def test_bad_inputs(attempt, words, files, capsys):
    told = message(attempt, files, capsys)
    assert told.startswith(words[0]), told
    assert all(word in told for word in words), told


def test_the_catalog_is_complete():
    count = {kind: len(kind.ROWS) for kind in (configs, checkpoints, data, options)}
    assert len(ROWS) == sum(count.values()) >= 250, 'no name twice'
    assert min(count.values()) >= 20


def test_the_good_config_is_good():
    assert isinstance(FeatureDistiller(**configs.good()._cfg_dict), FeatureDistiller)


@pytest.mark.parametrize('attempt', [row[1] for row in data.UNUSUAL], ids=[row[0] for row in data.UNUSUAL])
def test_unusual_batches_are_trained_on(attempt):
    losses = attempt()
    assert any('.loss' in name for name in losses)
    assert all(torch.isfinite(value) for name, value in losses.items() if 'loss' in name), losses


@pytest.mark.parametrize('kind', data.MODELS)
def test_images_of_nan_give_losses_of_nan_as_the_student_alone_does(kind):
    make, batch = data.MODELS[kind]
    poisoned = data.images(math.nan)(batch())
    alone = losses_of(build(make()).train(), poisoned)
    DefaultScope._instance_dict.clear()
    model = FeatureDistiller(make(), data.teacher(make(16)), dict(last=next(iter(data.OBJECTIVES[kind].values()))))
    distilled = losses_of(model.train(), poisoned)
    assert any(torch.as_tensor(value).isnan().any() for name, value in alone.items() if 'loss' in name)
    assert all(value.isnan() for name, value in distilled.items() if name.startswith('last.loss'))
