"""The two processes, started once for all quick tests."""
from functools import partial

import pytest
import torch

from tests.distributed.label_free import of_a_rank as of_label_free
from tests.distributed.methods import OTHERS, WITH_EVERY_PART
from tests.distributed.pair import Pair
from tests.distributed.steps import build, of_a_rank
from tests.distributed.trainings import resumed_once
from tests.helpers.runs import DISTILLED


@pytest.fixture(scope='session')
def teacher_weights(tmp_path_factory):
    """A checkpoint of the classification teacher."""
    model, _ = build(DISTILLED['classification'])
    file = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save(model.teachers[0].model.state_dict(), file)
    return file


@pytest.fixture(scope='session')
def pair(digits, teacher_weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp('pair')
    training = partial(resumed_once, digits, teacher_weights, folder / 'training')
    steps = {path: partial(of_a_rank, path) for path in WITH_EVERY_PART}
    started = Pair({'training': training, 'label_free': of_label_free} | steps, folder)
    yield started
    started.close()


@pytest.fixture(scope='module')
def pair_of_others(tmp_path_factory):
    started = Pair({path: partial(of_a_rank, path) for path in OTHERS}, tmp_path_factory.mktemp('pair_of_others'))
    yield started
    started.close()
