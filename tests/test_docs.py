"""What the documentation shows: configs are built, code runs, commands take the options, files are there.

A Python block that cannot run says so in a comment before it: ``<!-- not run: why -->``.
"""
import argparse
import ast
import functools
import importlib
import importlib.util
import inspect
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS, DefaultScope

from mmfeatdistill import registry
from mmfeatdistill.distill_config import teacher_options
from mmfeatdistill.zoo.configs import load_config
from tests.conftest import load_script
from tests.helpers.runs import CONFIGS, teachers_of

ROOT = CONFIGS.parent
PAGES = sorted(page.relative_to(ROOT) for page in [
    ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *ROOT.glob('docs/*.md'), *ROOT.glob('configs/*/README.md')])
IDS = list(map(str, PAGES))
# A reader's own files begin with "my", placeholders are in angle brackets.
OWN = re.compile(r'(^|/)my|[<>]')
PATH = re.compile(r'(?<![\w/.:-])(?:configs|docs|mmfeatdistill|tests|tools)/[\w./*<>+-]*\w')
NEEDS = "the documentation needs pip install '.[docs]'"
OTHER_COMMANDS = {'bash', 'csCreateTrainIdLabelImgs', 'mim', 'source'}


class Block(NamedTuple):
    """A fenced block of a page."""

    place: str
    text: str
    is_run: bool


def blocks(page: Path, language: str) -> Iterator[Block]:
    text = (ROOT / page).read_text()
    fence = r'^(<!-- not run: \S.*-->\n)?( *)```(.*)\n([\s\S]*?)^\2```$'  # in a list, it is indented
    for match in re.finditer(fence, text, re.MULTILINE):
        if match[3] == language:
            yield Block(f'{page}:{text.count(chr(10), 0, match.start(4)) + 1}', textwrap.dedent(match[4]),
                        match[1] is None)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command, without what a shell does itself."""
    for block in blocks(page, 'bash'):
        for line in block.text.replace('\\\n', ' ').splitlines():
            words = shlex.split(line, comments=True)
            while words and re.match(r'[A-Z_]+=', words[0]):
                words = words[1:]
            if words:
                yield words[:words.index('>')] if '>' in words else words


def is_config(block: Block) -> bool:
    return re.search('^(_base_ = |with read_base)', block.text, re.MULTILINE) is not None


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A directory in which a reader could write configs of his own."""
    (tmp_path / 'configs' / 'my_pairs').mkdir(parents=True)
    for folder in CONFIGS.iterdir():
        (tmp_path / 'configs' / folder.name).symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    # What an example registers is gone afterwards, unlike what is imported on first use.
    registry.MODELS.import_from_location()
    monkeypatch.setattr(registry.MODELS, '_module_dict', dict(registry.MODELS._module_dict))
    return tmp_path


def write(block: Block) -> Config:
    """Writes a config under the name that its first line gives it, and loads it."""
    named = re.match(r'# (configs/my_pairs/\w[\w.-]*\.py)\n', block.text)
    file = Path(named[1] if named else f'configs/my_pairs/my_{block.place.replace("/", "-").replace(":", "_")}.py')
    file.write_text(block.text)
    return Config.fromfile(file)


def check(cfg: Config) -> None:
    """Builds what is small; of large networks, everything but them."""
    for hook in cfg.get('custom_hooks', []):
        HOOKS.build(dict(hook, _scope_=cfg.default_scope))
    if 'model' not in cfg:
        return
    for teacher in teachers_of(cfg):
        teacher.update(checkpoint=None)
    if cfg.train_dataloader.dataset.get('data_root', '').startswith('data/digits'):
        MODELS.build(dict(cfg.model, _scope_=cfg.default_scope))
        return
    for teacher in teacher_options(cfg.model.teacher).values():
        if 'config' in teacher:
            load_config(teacher['config'])
        else:
            MODELS.build(teacher['model'])
    for objective in cfg.model.objectives.values():
        registry.build(objective, 'model.objectives')
        registry.build(objective.loss, 'model.objectives.loss')


@pytest.mark.parametrize('page', PAGES, ids=IDS)
def test_python_blocks(clone, page):
    namespace = {'__name__': 'example'}
    for block in blocks(page, 'python'):
        if block.is_run and is_config(block):
            check(write(block))
        elif block.is_run:
            exec(compile(block.text, block.place, 'exec'), namespace)
        else:
            compile(block.text.replace('{{', '').replace('}}', ''), block.place, 'exec')


def snippets(text: str) -> Iterator[dict]:
    """The complete ``dict(type=...)`` that a text has between backticks; placeholders make one incomplete."""
    for code in re.findall(r'(?<=`)(?:\w+=)?dict\(type=[^`]*\)(?=`)', text):
        call = ast.parse(re.sub(r'\s+', ' ', f'f({code})'), mode='eval').body
        for value in [*call.args, *(keyword.value for keyword in call.keywords)]:
            placeholders = [node for node in ast.walk(value) if isinstance(node, ast.Constant) and node.value is ...
                            or isinstance(node, ast.Name) and node.id != 'dict']
            if not placeholders:
                cfg = eval(compile(ast.Expression(value), code, 'eval'), dict(dict=dict))
                if isinstance(cfg, dict) and 'type' in cfg:
                    yield cfg


def sources() -> list[Path]:
    """All pages, and all modules, whose docstrings have snippets too."""
    modules = (ROOT / 'mmfeatdistill').rglob('*.py')
    return [ROOT / page for page in PAGES] + sorted(path for path in modules if '.mim' not in path.parts)


SNIPPETS = [pytest.param(cfg, id=f'{path.relative_to(ROOT)}-{cfg["type"]}-{i}')
            for path in sources() for i, cfg in enumerate(snippets(path.read_text()))]


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
@pytest.mark.parametrize('cfg', SNIPPETS)
def test_a_snippet_is_found_in_the_scope_of_a_users_config(cfg, scope):
    """A hook is built as a runner builds it, once it has built the distiller; other classes are looked up and their
    options compared."""
    MODELS.get('mmfeatdistill.FeatureDistiller')
    DefaultScope.get_instance('test', scope_name=scope)
    if cfg['type'].endswith('Hook'):
        assert HOOKS.build(dict(cfg))
        return
    cls = registry.MODELS.get(cfg['type'])
    assert cls is not None, cfg
    options = {key: value for key, value in cfg.items() if key != 'type'}
    assert options.keys() <= inspect.signature(cls).parameters.keys(), cfg


def test_snippets_are_found_and_wrong_ones_fail():
    assert len(SNIPPETS) > 12
    assert {cfg.values[0]['type'].rpartition('.')[2] for cfg in SNIPPETS} >= {
        'ObjectiveScheduleHook', 'AlignmentHook', 'Conv1x1'}
    text = "`dict(type='A',\n  x=1)` and ``loss=dict(type='B'), connector=dict(type='D')`` not `dict(type='C', y=...)`"
    assert list(snippets(text)) == [dict(type='A', x=1), dict(type='B'), dict(type='D')]
    with pytest.raises(KeyError, match='NoSuchHook'):
        test_a_snippet_is_found_in_the_scope_of_a_users_config(dict(type='NoSuchHook'), 'mmdet')


MODULE = re.compile(r'\bmmfeatdistill(?:\.[a-z_]+)+\b(?!\.py)')


@pytest.mark.parametrize('page', PAGES, ids=IDS)
def test_modules_that_a_page_names_are_there(page):
    for name in MODULE.findall((ROOT / page).read_text()):
        module, _, attribute = name.rpartition('.')
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), attribute), name


script = functools.cache(load_script)


class Parsed(Exception):
    """Ends a command once its command line is parsed."""


@pytest.fixture
def parse(monkeypatch, capsys):
    """Has a tool parse a command line; fails with what the tool says."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(parser, args=None, namespace=None):
        raise Parsed(original(parser, args, namespace))

    def run(tool: str, *words: str) -> None:
        if tool == '-m':
            tool, *words = words
        monkeypatch.setattr(sys, 'argv', [tool, *words])
        with monkeypatch.context() as context:
            context.setattr(argparse.ArgumentParser, 'parse_args', parse_args)
            try:
                (script(tool) if tool.endswith('.py') else importlib.import_module(f'{tool}.__main__')).main()
            except Parsed:
                return
            except SystemExit:
                pytest.fail(f'{shlex.join([tool, *words])}\n{capsys.readouterr().err}')
        pytest.fail(f'{tool} has not parsed a command line')
    return run


def run_command(words: list[str], parse) -> None:
    command, *rest = words
    if command == 'python' and rest[0] == '-c':
        compile(rest[1], 'a command', 'exec')
    elif command == 'python' and rest[0] == '-m':
        assert importlib.util.find_spec(rest[1]), words
    elif command == 'python':
        for path in filter(re.compile(r'configs/[^<>]*\.py$').match, rest):
            assert OWN.search(path) or any(ROOT.glob(path)), path
        parse(*rest)
    elif command == 'tools/dist_train.sh':
        assert rest[1].isdigit(), words
        parse('tools/train.py', rest[0], '--launcher', 'pytorch', *rest[2:])
    elif command == 'tools/slurm_train.sh':
        parse('tools/train.py', rest[2], '--work-dir', rest[3], '--launcher', 'slurm', *rest[4:])
    elif command == 'make':
        phony = ' '.join(re.findall(r'^\.PHONY: (.*)', (ROOT / 'Makefile').read_text(), re.MULTILINE)).split()
        assert {word for word in rest if '=' not in word} <= set(phony), words
    elif command == 'pip':
        for extra in re.findall(r'\.\[(\w+)]', ' '.join(rest)):
            assert f"'{extra}': [" in (ROOT / 'setup.py').read_text(), words
    else:
        assert command in OTHER_COMMANDS, words


@pytest.mark.parametrize('page', PAGES, ids=IDS)
def test_commands(page, parse):
    for words in commands(page):
        run_command(words, parse)


@pytest.mark.parametrize('words', [
    ['python', 'tools/train.py', 'config.py', '--epochs', '3'], ['python', 'tools/publish.py'], ['make', 'tset'],
    ['pip', 'install', '.[everything]'], ['tools/dist_train.sh', '8', 'config.py'], ['pyhton', 'tools/train.py'],
    ['python', '-m', 'mmfeatdistill.no_such_module']])
def test_a_wrong_command_is_found(words, parse):
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        run_command(words, parse)


@pytest.mark.parametrize('page', PAGES, ids=IDS)
def test_paths(page):
    text = re.sub(r'<?https?://\S+', '', (ROOT / page).read_text())
    missing = [path for path in PATH.findall(text) if not OWN.search(path) and not any(ROOT.glob(path))]
    links = [link.partition('#')[0] for link in re.findall(r'\]\(([\w./#-]+)\)', text)]
    folder = (ROOT / page).parent
    for link in filter(None, links):
        # The pages of the methods are written when the site is built.
        method = re.fullmatch(r'methods/(\w+)\.md', link)
        if not (CONFIGS / method[1] / 'README.md' if method else folder / link).exists():
            missing.append(link)
    assert not missing


def test_pages_of_methods_have_the_readmes_links():
    pytest.importorskip('sphinx', reason=NEEDS)
    conf = script('docs/conf.py')
    for readme in CONFIGS.glob('*/README.md'):
        for link in re.findall(r'\]\((?!https?:|#)([^)#\s]+)', conf.method_page(readme)):
            method = CONFIGS / Path(link).stem / 'README.md'
            assert method.exists() if os.sep not in link else (conf.PAGES / link).resolve().exists(), (readme, link)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    build = pytest.importorskip('sphinx.cmd.build', reason=NEEDS)
    assert build.main(['-W', '--keep-going', '-q', '-b', 'html', '-d', str(tmp_path / 'trees'), str(ROOT / 'docs'),
                       str(tmp_path / 'site')]) == 0
    assert {page.stem for page in (tmp_path / 'site' / 'methods').glob('*.html')} == {
        readme.parent.name for readme in CONFIGS.glob('*/README.md')}
