"""Fixtures that tests of all rooms share."""
import dataclasses
import importlib.util
import logging
import os
import sys
from pathlib import Path

# Before torch is imported, and for processes that tests start. The networks are so small that a second thread only
# slows them down; and processes that are compared must round alike.
os.environ.update(OMP_NUM_THREADS='1', OMP_WAIT_POLICY='passive')

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

ROOT = Path(__file__).parents[1]
SCENES = (32, 10)  # in training and in test


@pytest.fixture(autouse=True)
def _quiet_and_scopeless():
    """mmengine's logs at errors only, and no default scope left over from another test."""
    MMLogger.get_instance('test', log_level=logging.ERROR)
    DefaultScope._instance_dict.clear()
    torch.manual_seed(0)
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace):
    doctest_namespace['torch'] = torch


def load_script(path: str):
    """A script under tools/ as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='session')
def digits(tmp_path_factory) -> Path:
    """A working directory with a few digit scenes under data/digits, in all three formats."""
    folder = tmp_path_factory.mktemp('project')
    converter = load_script('tools/dataset_converters/digit_scenes.py')
    converter.LAYOUTS = {name: dataclasses.replace(layout, scenes=SCENES)
                         for name, layout in converter.LAYOUTS.items()}
    converter.main([str(folder / 'data' / 'digits')])
    return folder


@pytest.fixture
def in_digits(digits, monkeypatch):
    """The same, as the current directory."""
    monkeypatch.chdir(digits)
    return Path(os.getcwd())
