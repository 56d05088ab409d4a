"""The command that plans a distillation, as a user starts it, in this process."""
import functools
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from mmengine.registry import DefaultScope

from mmfeatdistill.zoo.configs import build_model, load_config
from tests.conftest import load_script
from tests.helpers.runs import CONFIGS
from tests.helpers.tiny_data import make_coco

script = functools.cache(load_script)
PAIRS = dict(classification=('resnet18-w8_digits.py', 'resnet18-w32_digits.py'),
             detection=('faster-rcnn_r18-w8_fpn_digits.py', 'faster-rcnn_r18-w32_fpn_digits.py'),
             segmentation=('pspnet_r18-w8-d8_digits.py', 'pspnet_r18-w32-d8_digits.py'))
CLASSES = ('nut', 'bolt', 'ring')


def pair(task: str) -> list[str]:
    """The student and the teacher of a task."""
    return [str(CONFIGS / 'digits' / name) for name in PAIRS[task]]


class Command(NamedTuple):
    """Runs the command in a folder that has the digits under ``data`` and a user's own boxes under ``mine``."""

    folder: Path
    capsys: pytest.CaptureFixture

    def __call__(self, *arguments: str) -> str:
        """What it prints."""
        self.capsys.readouterr()
        DefaultScope._instance_dict.clear()
        script('tools/distill.py').main(list(map(str, arguments)))
        return self.capsys.readouterr().out

    def dry(self, *arguments: str) -> str:
        """Without training, of a random teacher."""
        return self(*arguments, '--dry-run', '--teacher-checkpoint', 'none')

    def refusal(self, *arguments: str) -> str:
        """What it says where it refuses, after which everything is as before."""
        before = self.files()
        with pytest.raises(SystemExit) as caught:
            self(*arguments)
        assert self.files() == before, 'nothing is written'
        told = self.capsys.readouterr().err.strip()
        return caught.value.code if isinstance(caught.value.code, str) else told.rpartition(' error: ')[2]

    def files(self) -> set[Path]:
        return set(self.folder.rglob('*'))


@pytest.fixture(scope='session')
def own_boxes(tmp_path_factory) -> Path:
    """A small folder of a user's own, in COCO's format."""
    folder = tmp_path_factory.mktemp('own') / 'mine'
    make_coco(folder, CLASSES)
    return folder


@pytest.fixture(scope='session')
def teacher_file(tmp_path_factory) -> Path:
    """Weights of the classifier that teaches, which know nothing."""
    file = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save(dict(state_dict=build_model(load_config(pair('classification')[1])).state_dict()), file)
    return file


@pytest.fixture
def distill(digits, own_boxes, tmp_path, monkeypatch, capsys) -> Command:
    (tmp_path / 'data').symlink_to(digits / 'data')
    (tmp_path / 'mine').symlink_to(own_boxes)
    monkeypatch.chdir(tmp_path)
    return Command(tmp_path, capsys)
