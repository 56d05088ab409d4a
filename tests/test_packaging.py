"""What an installation holds: the package, and under .mim the configs and tools that mim and mmengine look for."""
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from packaging.requirements import Requirement

from mmfeatdistill.zoo import packages
from mmfeatdistill.zoo.configs import load_config

ROOT = Path(__file__).parents[1]
CONFIG = 'ofd/ofd_resnet18-w8_digits.py'
LEFT_BY_A_BUILD = {'build', 'dist', 'mmfeatdistill.egg-info'}


@pytest.fixture
def tree(tmp_path):
    """The source tree, without what git ignores."""
    copy = tmp_path / 'source'
    copy.mkdir()
    for name in ('mmfeatdistill', 'configs', 'requirements', 'tools'):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns('__pycache__', '.mim'))
    for name in ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'model-index.yml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, copy)
    return copy


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob('*')
            if path.is_file() and path.relative_to(folder).parts[0] not in LEFT_BY_A_BUILD}


def shipped(folder: Path) -> set[str]:
    return {'model-index.yml', *(name for name in files(folder) if name.startswith(('configs/', 'tools/')))}


def setup(tree: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, '-W', 'ignore', 'setup.py', '-q', *arguments], cwd=tree, text=True,
                          capture_output=True, env=os.environ | dict(PYTHONDONTWRITEBYTECODE='1'))
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_wheel_ships_configs_and_tools(tree, tmp_path, monkeypatch):
    before = files(tree)
    (tree / 'build' / 'lib' / 'mmfeatdistill' / '.mim').mkdir(parents=True)
    (tree / 'build' / 'lib' / 'mmfeatdistill' / '.mim' / 'removed.py').touch()  # by an earlier build
    setup(tree, 'bdist_wheel')
    assert files(tree) == before, 'a build leaves the source tree as it was'
    with zipfile.ZipFile(next((tree / 'dist').glob('*.whl'))) as wheel:
        found = {name.removeprefix('mmfeatdistill/.mim/') for name in wheel.namelist() if '/.mim/' in name}
        assert found == shipped(tree)
        assert {name for name in wheel.namelist() if name.endswith('.py') and '/.mim/' not in name} == {
            name for name in before if name.startswith('mmfeatdistill/') and name.endswith('.py')}
        wheel.extractall(tmp_path / 'site')
    # As an installed package sees it: what the configs refer to by their own folder is there.
    configs = tmp_path / 'site' / 'mmfeatdistill' / '.mim' / 'configs'
    teacher = Config.fromfile(configs / CONFIG).model.teacher.config
    assert Path(teacher).resolve() == (configs / 'digits' / 'resnet18-w32_digits.py').resolve()
    assert Config.fromfile(teacher).model.type == 'ImageClassifier'


def test_a_source_distribution_can_build_the_same(tree):
    setup(tree, 'sdist')
    with tarfile.open(next((tree / 'dist').glob('*.tar.gz'))) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    assert 'requirements/constraints-maintained.txt' in names
    assert shipped(tree) <= names and not any('.mim' in name or 'pycache' in name for name in names)


def test_an_editable_install_links_to_the_source_tree(tree):
    """A config that is written later is found too."""
    setup(tree, 'editable_wheel')
    folder = tree / 'mmfeatdistill' / '.mim'
    assert {path.name: path.resolve() for path in folder.iterdir()} == {
        name: (tree / name).resolve() for name in ('configs', 'tools', 'model-index.yml')}
    setup(tree, 'editable_wheel')  # again
    setup(tree, 'sdist')
    with tarfile.open(next((tree / 'dist').glob('*.tar.gz'))) as archive:
        assert not any('.mim' in name for name in archive.getnames())


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """The package as if it were installed, with the links of an editable install."""
    mim = tmp_path / 'mmfeatdistill' / '.mim'
    mim.mkdir(parents=True)
    for name in ('configs', 'tools', 'model-index.yml'):
        (mim / name).symlink_to(ROOT / name)
    monkeypatch.setattr(packages, 'config_folder', lambda library: str(mim / 'configs'))
    monkeypatch.setattr('mmfeatdistill.zoo.configs.config_folder', lambda library: str(mim / 'configs'))
    monkeypatch.setattr('mmengine.utils.get_installed_path', lambda name: str(mim.parent))
    monkeypatch.setattr('mmengine.hub.hub.get_installed_path', lambda name: str(mim.parent))
    return mim


@pytest.mark.parametrize('load, name', [
    (get_config, CONFIG), (load_config, CONFIG), (load_config, 'ofd_resnet18-w8_digits')])
def test_the_configs_have_names_as_those_of_the_libraries(installed, load, name):
    cfg = load(f'mmfeatdistill::{name}')
    direct = Config.fromfile(ROOT / 'configs' / CONFIG)
    assert cfg.model.objectives == direct.model.objectives and cfg.model.student == direct.model.student
    assert Config.fromfile(cfg.model.teacher.config).model.backbone.base_channels == 32


def test_mmengine_finds_the_folder_of_the_package_itself():
    """Also of an editable install, whose distribution lies elsewhere."""
    from mmengine.config.utils import MODULE2PACKAGE
    from mmengine.utils import get_installed_path, is_installed
    name = MODULE2PACKAGE['mmfeatdistill']
    assert is_installed(name) and Path(get_installed_path(name)) == ROOT / 'mmfeatdistill'


FAMILIES = {'maintained': 'maintained', 'compiled': 'maintained', 'original': 'original'}
"""The extra that belongs to each file of constraints."""


@pytest.fixture(scope='module')
def extras() -> dict[str, list[Requirement]]:
    """The extras of setup.py, with those that they name."""
    given: dict[str, list[str]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr('setuptools.setup', lambda **keywords: given.update(keywords['extras_require']))
        runpy.run_path('setup.py')

    def resolved(name: str) -> list[Requirement]:
        requirements = [Requirement(line) for line in given[name]]
        return [requirement for requirement in requirements if requirement.name != 'mmfeatdistill'] + [
            further for requirement in requirements if requirement.name == 'mmfeatdistill'
            for extra in requirement.extras for further in resolved(extra)]
    return {name: resolved(name) for name in given}


def constraints(family: str) -> dict[str, Requirement]:
    lines = (ROOT / 'requirements' / f'constraints-{family}.txt').read_text().splitlines()
    return {requirement.name: requirement for requirement in map(Requirement, filter(re.compile(r'\w').match, lines))}


def pins(family: str) -> dict[str, str]:
    """What is pinned to one version."""
    return {name: str(requirement.specifier).removeprefix('==') for name, requirement in constraints(family).items()
            if str(requirement.specifier).startswith('==')}


@pytest.mark.parametrize('extra', ['maintained', 'mminstall', 'original'])
def test_an_installation_may_have_newer_libraries(extras, extra):
    """Bounds, and no pins, which would take an environment that works apart."""
    for requirement in extras[extra]:
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators <= {'>=', '<'}, requirement
        if re.match('torch|onedl|mm', requirement.name):
            assert '>=' in operators, requirement


@pytest.mark.parametrize('family, extra', FAMILIES.items())
def test_the_tested_versions_are_within_the_bounds(extras, family, extra):
    tested = pins(family)
    libraries = {requirement.name: requirement.specifier for requirement in extras[extra]
                 if re.match('torch|onedl|mm', requirement.name)}
    assert len(libraries) == 7 and libraries.keys() <= tested.keys()
    for name, specifier in libraries.items():
        assert tested[name] in specifier, name
    assert tested['opencv-python'] == tested['opencv-python-headless'], 'they overwrite each other'


def test_mim_finds_what_it_installs_beforehand(extras):
    """mim asks for this extra; neither family is required otherwise."""
    assert {requirement.name for requirement in extras['mminstall']} == {'onedl-mmengine', 'onedl-mmcv'}


def test_the_documented_versions_are_the_tested_ones():
    rows = [[cell.strip() for cell in line.strip('|').split('|')]
            for line in (ROOT / 'docs' / 'packages.md').read_text().splitlines() if line.startswith('|')]
    header = next(row for row in rows if row[1:] == list(FAMILIES))
    written = {family: {name: version for row in rows[rows.index(header):]
                        for name, version in re.findall(r'`([\w-]+)==([\d.]+)`',
                                                        row[header.index(family)] if len(row) == len(header) else '')}
               for family in FAMILIES}
    for family in FAMILIES:
        tested = pins(family)
        del tested['opencv-python']  # is taken away again
        assert written[family] == tested
