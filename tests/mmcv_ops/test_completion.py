"""What is there of mmcv's operators: found, completed, and never replaced."""
import ast
import errno
import importlib.util
import os
import stat
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
import torch

import mmfeatdistill
from mmfeatdistill.mmcv_ops import EXTENSION, StandInFinder, make_available
from mmfeatdistill.mmcv_ops.__main__ import main, table
from mmfeatdistill.mmcv_ops.completion import install, mmcv_folder, remove, state
from mmfeatdistill.mmcv_ops.extension import STAND_INS, find
from mmfeatdistill.mmcv_ops.operators import NAMES, MissingOperatorError

ROOT = Path(__file__).parents[2]


def asked_for() -> set[str]:
    """The operators that the installed mmcv asks its extension for."""
    found = set()
    for file in (mmcv_folder() / 'ops').glob('*.py'):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, 'attr', None) == 'load_ext':
                found |= {name.value for name in node.args[1].elts}
    return found


def test_all_operators_are_named():
    assert len(NAMES) == len(set(NAMES)) == 113
    assert asked_for() <= set(NAMES)
    assert set(STAND_INS) <= set(NAMES)


def test_every_operator_can_be_looked_up(stand_ins):
    assert all(callable(getattr(stand_ins, name)) for name in NAMES)
    assert not hasattr(stand_ins, '__path__')


@pytest.mark.parametrize('name', sorted(set(NAMES) - set(STAND_INS)))
def test_missing_operators_say_how_to_have_them(name):
    with pytest.raises(MissingOperatorError) as error:
        find(name)(torch.zeros(1), size=3)
    for part in (name, 'without compiled operators', 'mim install onedl-mmcv', '--no-build-isolation'):
        assert part in str(error.value)


def test_a_missing_operator_of_a_public_function(stand_ins):
    from mmcv.ops import convex_iou
    with pytest.raises(MissingOperatorError, match="'convex_iou' is not there"):
        convex_iou(torch.zeros(1, 18), torch.zeros(1, 8))


def test_the_environment_can_be_reported(stand_ins):
    from mmcv.utils import collect_env
    report = collect_env()
    assert report['MMCV'] and report['MMCV Compiler'] and report['MMCV CUDA Compiler']


@pytest.fixture
def folder(tmp_path):
    """An mmcv without operators."""
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv' / '__init__.py').touch()
    return tmp_path / 'mmcv'


def found_in(folder: Path, monkeypatch) -> str:
    """The file that Python would import for ``mmcv._ext``; nothing is imported."""
    import mmcv
    monkeypatch.setattr(mmcv, '__path__', [str(folder)])
    monkeypatch.delitem(sys.modules, EXTENSION, raising=False)
    importlib.invalidate_caches()
    return importlib.util.find_spec(EXTENSION).origin


def test_compiled_operators_come_first(folder, monkeypatch):
    assert found_in(folder, monkeypatch).endswith('mmcv_ops/stand_in.py')
    install(folder)
    assert found_in(folder, monkeypatch) == str(folder / '_ext.py')
    (folder / f'_ext{EXTENSION_SUFFIXES[0]}').touch()
    assert found_in(folder, monkeypatch) == str(folder / f'_ext{EXTENSION_SUFFIXES[0]}')


def test_the_installed_compiled_operators_are_not_replaced():
    import mmcv._ext
    assert (state(mmcv_folder()) == 'compiled') == mmcv._ext.__file__.endswith(tuple(EXTENSION_SUFFIXES))


def test_the_finder_is_last_and_there_once():
    make_available()
    assert sys.meta_path.count(StandInFinder) == 1
    assert StandInFinder.find_spec('mmcv._extra') is None and StandInFinder.find_spec('mmcv') is None


def test_install_and_remove(folder):
    assert state(folder) == 'bare'
    assert 'works in every program' in install(folder)
    assert state(folder) == 'completed' and 'works in every program' in install(folder)
    assert stat.S_IMODE((folder / '_ext.py').stat().st_mode) == 0o644
    assert 'as it was installed' in remove(folder)
    assert state(folder) == 'bare' and os.listdir(folder) == ['__init__.py']
    assert 'nothing is to be done' in remove(folder)


def test_what_is_not_ours_is_left(folder):
    (folder / '_ext.py').write_text('"""Of somebody else."""\n')
    for action in (install, remove):
        with pytest.raises(FileExistsError, match='left as it is'):
            action(folder)
    assert state(folder) == 'another file' and 'somebody else' in (folder / '_ext.py').read_text()


def test_compiled_is_not_completed(folder):
    (folder / f'_ext{EXTENSION_SUFFIXES[0]}').touch()
    with pytest.raises(FileExistsError, match='has compiled operators'):
        install(folder)
    assert not (folder / '_ext.py').exists()


def test_a_failed_write_leaves_nothing(folder, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, 'disk full')
    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='disk full'):
        install(folder)
    assert os.listdir(folder) == ['__init__.py']


def test_commands(folder, monkeypatch, capsys):
    monkeypatch.setattr('mmfeatdistill.mmcv_ops.__main__.mmcv_folder', lambda: folder)
    for action, said in [('status', 'has no compiled operators'), ('install', 'is there'), ('status', 'was completed'),
                         ('remove', 'is gone')]:
        assert main([action]) == 0
        assert said in capsys.readouterr().out
    (folder / f'_ext{EXTENSION_SUFFIXES[0]}').touch()
    assert main(['install']) == 1
    assert 'has compiled operators' in capsys.readouterr().err
    assert main(['status']) == 0
    assert capsys.readouterr().out.count('\n') == 1


def test_the_documented_table_is_what_there_is():
    assert table() in (ROOT / 'docs' / 'mmcv_ops.md').read_text()


def in_new_process(code: str, path: list[str]) -> str:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path))
    done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_this_project_loads_no_operators():
    code = ("import sys, mmfeatdistill; print([name for name in sys.modules if name.split('.')[0] == 'torchvision' "
            "or name.startswith('mmfeatdistill.mmcv_ops.') or name == 'mmcv._ext'])")
    assert in_new_process(code, [str(ROOT)]) == '[]'


def test_a_completed_mmcv_works_by_itself(tmp_path):
    """As the libraries' own tools import it: without this project."""
    copy = tmp_path / 'mmcv'
    copy.mkdir()
    for part in mmcv_folder().iterdir():
        if not part.name.startswith('_ext'):
            (copy / part.name).symlink_to(part)
    code = ("import torch, mmcv; from mmcv.ops import nms, get_compiler_version; "
            "print(mmcv.__path__[0], get_compiler_version(), nms(torch.zeros(1, 4), torch.ones(1), 0.5)[1].item())")
    with pytest.raises(subprocess.CalledProcessError) as error:
        in_new_process(code, [str(tmp_path), str(ROOT)])
    assert "No module named 'mmcv._ext'" in error.value.stderr
    install(copy)
    assert in_new_process(code, [str(tmp_path), str(ROOT)]) == (
        f'{copy} none, operators of mmfeatdistill {mmfeatdistill.__version__} 0')
