"""Data that datasets download themselves, where nothing can be downloaded."""
from pathlib import Path
from urllib.error import URLError

import mmpretrain.datasets.utils
import pytest
from mmengine.config import Config
from mmpretrain.datasets import MNIST

from mmfeatdistill.planning.training_data import failed_download, missing_data
from tests.planning.conftest import pair


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def fail(*_, **__):
        raise URLError('no internet')

    monkeypatch.setattr(mmpretrain.datasets.utils, 'download_url_to_file', fail)


def config(**dataset) -> Config:
    return Config(dict(default_scope='mmpretrain', val_dataloader=dict(dataset=dict(
        dataset, pipeline=[dict(type='PackInputs')]))))


@pytest.mark.parametrize('place', [dict(data_prefix='nowhere'), dict(data_root='nowhere')])
@pytest.mark.parametrize('name', ['CIFAR10', 'MNIST'])
def test_a_failed_download_says_what_and_where(name, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = config(type=name, split='test', **place)
    assert missing_data(cfg) == '' and not any(tmp_path.iterdir()), 'nothing is fetched to see what is there'
    told = failed_download(cfg)
    assert told.startswith(f"val_dataloader reads {name} in 'nowhere") and 'could not be downloaded (URLError' in told


def test_nothing_is_downloaded_that_is_there(tmp_path):
    for file, _ in MNIST.train_list + MNIST.test_list:
        (tmp_path / Path(file).stem).touch()
    assert failed_download(config(type='MNIST', split='test', data_prefix=str(tmp_path))) == ''


def test_datasets_that_download_nothing_or_cannot_be_built_are_none_of_it():
    assert failed_download(config(type='CustomDataset', data_root='nowhere')) == ''
    assert failed_download(config(type='CIFAR10', split='neither', data_prefix='nowhere')) == ''


def test_a_dry_run_goes_on_without_them(distill, teacher_file):
    """With random images; a training is refused."""
    student = distill.folder / 'student.py'
    student.write_text(f'_base_ = {pair("classification")[0]!r}\ntrain_dataloader = dict(dataset=dict(_delete_=True, '
                       'type="CIFAR10", split="train", data_prefix="cifar", pipeline=[]))\n')
    arguments = [student, pair('classification')[1], '--weight', '0.25', '--images', '0']
    said = distill.dry(*arguments, '--out', 'a.py')
    assert "train_dataloader reads CIFAR10 in 'cifar', where its files are not, and they could not be downl" in said
    assert 'goes on with random images' in said and 'makes a step on random images' in said
    told = distill.refusal(*arguments, '--teacher-checkpoint', teacher_file)
    assert told.startswith("STUDENT: train_dataloader reads CIFAR10 in 'cifar'")
