"""The names in the configs: zoo weights exist, trained teachers have configs, files are called what they do."""
import functools
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmfeatdistill.zoo.configs import load_config, zoo_weights
from tests.helpers.runs import CONFIGS, teachers_of

CONFIG_FILES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob('*.py')
                      if '_base_' not in path.relative_to(CONFIGS).parts)
DATASETS = ('cifar100', 'cityscapes', 'coco', 'digits', 'imagenet', 'voc')
TRAINED = re.compile(r'work_dirs/(?P<name>[^/]+)/(?P<last>(epoch|iter)_\d+)\.pth')
every_config = pytest.mark.parametrize('path', CONFIG_FILES)

loaded = functools.cache(load_config)


@functools.cache
def teachers(path: str) -> list[dict[str, Any]]:
    """The teachers of a config as dicts; none where it does not distill."""
    entries = teachers_of(Config.fromfile(CONFIGS / path))
    return [dict(config=entry) if isinstance(entry, str) else dict(entry) for entry in entries]


def checkpoint_of(teacher: dict[str, Any]) -> str:
    return teacher.get('checkpoint', 'zoo')


@functools.cache
def url_of_zoo_weights(config: str) -> str:
    return zoo_weights(loaded(config).filename, config)


def names_of_training(config: str) -> tuple[str, str]:
    """How the work directory and the last checkpoint of a config's training are called."""
    cfg = loaded(config)
    length = cfg.train_cfg
    last = f'epoch_{length.max_epochs}' if 'max_epochs' in length else f'iter_{length.max_iters}'
    return Path(cfg.filename).stem, last


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError('no name needs the network')
    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)


@every_config
def test_a_zoo_teacher_has_weights(no_network, path):
    for teacher in teachers(path):
        if checkpoint_of(teacher) == 'zoo':
            assert re.fullmatch(r'https?://\S+\.pth', url_of_zoo_weights(teacher['config']))


@every_config
def test_a_trained_teacher_is_the_last_checkpoint_of_its_config(path):
    for teacher in teachers(path):
        checkpoint = checkpoint_of(teacher)
        if checkpoint in ('zoo', 'init_cfg') or checkpoint.startswith('https://'):
            continue
        trained = TRAINED.fullmatch(checkpoint)
        assert trained, f'{checkpoint!r} is neither of a zoo nor what a training of a config leaves'
        name, last = names_of_training(teacher['config'])
        # Of an ensemble, each further teacher is trained from a seed of its own: ..._2, ..._3.
        assert re.fullmatch(rf'{re.escape(name)}(_[2-9])?', trained['name'])
        assert trained['last'] == last


@every_config
def test_a_distillation_is_called_by_its_method(path):
    folder, name = Path(path).parts[-2:]
    is_student_alone = folder in DATASETS or name.endswith('-pretrained.py')
    assert bool(teachers(path)) != is_student_alone
    if teachers(path) and folder != 'label_free':  # which is no method, but a way to train by any
        # A variant of a method follows its name: feed-sequential_...
        # Names of pure-Python configs are those of modules.
        assert re.match(rf'{folder.replace("_", "-")}(-[a-z0-9]+)*_', name) or (
            path.startswith('pure_python') and name.startswith(f'{folder}_'))


def test_both_kinds_of_teachers_are_there():
    kinds = {checkpoint_of(teacher).partition('/')[0] for path in CONFIG_FILES for teacher in teachers(path)}
    assert {'zoo', 'work_dirs'} <= kinds
