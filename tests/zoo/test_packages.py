import subprocess
import sys

import pytest
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.hub import get_config

from mmfeatdistill.zoo import packages
from mmfeatdistill.zoo.packages import check_requirements, config_folder, make_stock_configs_resolvable, stock_config

STOCK = {'mmdet': '_base_/models/retinanet_r50_fpn.py', 'mmseg': '_base_/models/fcn_r50-d8.py',
         'mmpretrain': '_base_/models/resnet18.py'}


@pytest.fixture
def no_pip(monkeypatch):
    """Starting any other process fails the test."""
    def refuse(*args, **kwargs):
        pytest.fail(f'a process was started: {args}')

    for name in ('Popen', 'run', 'call', 'check_call', 'check_output'):
        monkeypatch.setattr(subprocess, name, refuse)


@pytest.mark.parametrize('library', STOCK)
def test_stock_configs_resolve_without_installing_anything(library, no_pip, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = ['{library}::{STOCK[library]}']\n")
    inherited = Config.fromfile(path)
    fetched = get_config(f'{library}::{STOCK[library]}')
    direct = Config.fromfile(stock_config(f'{library}::{STOCK[library]}'))
    assert inherited.model.pop('_scope_') == library  # which mmengine adds
    fetched.model.pop('_scope_', None)
    assert inherited.model == fetched.model == direct.model


def test_without_this_package_mmengine_would_install_one(monkeypatch):
    """The trap itself: if mmengine no longer has it, this package's remedy can go."""
    if MODULE2PACKAGE['mmseg'] != 'mmseg':
        pytest.skip('the original package family, where the name is right')
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'mmsegmentation')
    asked = []
    monkeypatch.setattr('mmengine.hub.hub.install_package', asked.append, raising=False)
    monkeypatch.setattr('mmengine.utils.install_package', asked.append, raising=False)
    monkeypatch.setattr('mmengine.utils.package_utils.call_command', asked.append, raising=False)
    try:
        get_config(f"mmseg::{STOCK['mmseg']}")
    except Exception:  # noqa: BLE001 - whatever follows from the pretended installation
        pass
    assert asked
    make_stock_configs_resolvable()
    assert MODULE2PACKAGE['mmseg'] == 'mmseg'


def test_what_is_not_installed_keeps_its_name(monkeypatch):
    monkeypatch.setitem(MODULE2PACKAGE, 'mm_that_is_not_there', 'something')
    make_stock_configs_resolvable()
    assert MODULE2PACKAGE['mm_that_is_not_there'] == 'something'


@pytest.mark.parametrize('name, error, words', [
    ('mmdet', ValueError, ["'<library>::<path>'", "got 'mmdet'"]),
    ('mmdet::', ValueError, ["got 'mmdet::'"]),
    ('mmdet::retinanet/retinanet_r50_fpn_1x_cocoo.py', FileNotFoundError,
     ['mmdet ships no config', "Did you mean 'retinanet/retinanet_r50_fpn_1x_coco.py'"]),
    ('mmdett::a.py', ImportError, ["'mmdett' is not installed. Did you mean 'mmdet'? To have it, install"]),
    ('a-b::a.py', ImportError, ["'a-b' is not installed"]),
    ('::a.py', ImportError, ["'' is not installed"]),
    ('json::a.py', ImportError, ['json was installed without its configs'])])
def test_stock_config_of_nothing(name, error, words):
    with pytest.raises(error) as caught:
        stock_config(name)
    assert all(word in str(caught.value) for word in words), caught.value


def test_config_folder():
    assert config_folder('mmdet').replace('\\', '/').endswith('mmdet/.mim/configs')


@pytest.mark.parametrize('minimum, words', [
    ({'torch': '99.1'}, ['needs torch >= 99.1, found ', 'pip install']),
    ({'no_such_package': '1.0'}, ['needs no_such_package >= 1.0, which is not installed', 'pip install'])])
def test_requirements_that_are_not_met(monkeypatch, minimum, words):
    check_requirements()
    monkeypatch.setattr(packages, 'MINIMUM', minimum)
    with pytest.raises(ImportError) as caught:
        check_requirements()
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize('version, recent', [
    ('2.11.0+cu130', True), ('2.1', True), ('2.1.0a0+git7bcf7da', True), ('2.10.0', True), ('2.0.1+cu117', False)])
def test_versions_are_compared_as_numbers(monkeypatch, version, recent):
    """Of builds with a suffix too, and of what NVIDIA's containers call an alpha."""
    monkeypatch.setattr('torch.__version__', version)
    if recent:
        check_requirements()
    else:
        with pytest.raises(ImportError, match=r'needs torch >= 2.1, found 2.0.1\+cu117'):
            check_requirements()


def test_importing_the_package_imports_no_task_library():
    code = ('import sys, mmfeatdistill; '
            'sys.exit(any(m.split(".")[0] in ("mmdet", "mmseg", "mmpretrain") for m in sys.modules))')
    assert subprocess.run([sys.executable, '-W', 'ignore', '-c', code]).returncode == 0
