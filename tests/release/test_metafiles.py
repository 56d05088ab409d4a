"""What is told about the configs agrees with them."""
import functools
import shutil
from pathlib import Path

import pytest
import yaml
from mmengine.config import utils

from mmfeatdistill.release import metafiles
from tests.conftest import load_script
from tests.helpers.runs import CONFIGS

ROOT = CONFIGS.parent
READ = functools.cache(utils.load)
RESULTS = [{'Task': 'Object Detection', 'Dataset': 'COCO', 'Metrics': {'box AP': 40.25}}]


@pytest.fixture(autouse=True)
def _libraries_metafiles_are_read_once(monkeypatch):
    """mmengine reads all those of a library for each file that is inherited from it."""
    monkeypatch.setattr(utils, 'load', READ)


@pytest.fixture
def tree(tmp_path):
    """A source tree with one method, two of its configs and what they inherit."""
    shutil.copytree(CONFIGS / '_base_', tmp_path / 'configs' / '_base_')
    for folder, names in (('at', ['at_resnet18-w8_digits', 'at_pspnet_r18-w8-d8_digits']),
                          ('digits', ['resnet18-w8_digits', 'resnet18-w32_digits', 'pspnet_r18-w8-d8_digits',
                                      'pspnet_r18-w32-d8_digits'])):
        (tmp_path / 'configs' / folder).mkdir()
        for name in names:
            shutil.copy(CONFIGS / folder / f'{name}.py', tmp_path / 'configs' / folder)
    (tmp_path / 'configs' / 'at' / 'README.md').write_text('# AT\n\n> [Paying attention](https://a.b/c) (2017)\n')
    return tmp_path


def regenerate(root: Path) -> list[str]:
    written = metafiles.outdated(root)
    for path, text in written.items():
        path.write_text(text)
    return sorted(path.relative_to(root).as_posix() for path in written)


def models(root: Path) -> dict[str, dict]:
    content = yaml.safe_load((root / 'configs' / 'at' / 'metafile.yml').read_text())
    return {model['Name']: model for model in content['Models']}


@pytest.mark.slow  # it reads all configs
def test_what_is_committed_is_up_to_date():
    def from_either_host(text: str) -> str:
        """The two package families name different hosts for the same weights."""
        return text.replace('https://download.openmmlab.com/', 'https://mmassets.onedl.ai/')

    stale = [str(path.relative_to(ROOT)) for path, text in metafiles.outdated(ROOT).items()
             if from_either_host(text) != from_either_host(path.read_text())]
    assert not stale, f'python tools/model_index.py has not been run: {stale}'


def test_index_metafiles_and_tables_name_every_config_and_no_other():
    listed = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    folders = {path.parent for path in CONFIGS.glob('*/*.py')} - {CONFIGS / '_base_'}
    assert {(ROOT / metafile).parent for metafile in listed} == folders
    names = []
    for folder in folders:
        told = yaml.safe_load((folder / 'metafile.yml').read_text())
        assert {model['Name']: ROOT / model['Config'] for model in told['Models']} == {
            path.stem: path for path in folder.glob('*.py')}, f'run tools/model_index.py: {folder}'
        names += [model['Name'] for model in told['Models']]
        assert {model['In Collection'] for model in told['Models']} <= {each['Name'] for each in told['Collections']}
        if (folder / 'README.md').exists():
            text = (folder / 'README.md').read_text()
            assert text == metafiles.with_table(text, metafiles.table(told['Models']))
    assert len(set(names)) == len(names)


def test_entries_are_derived_from_the_configs(tree):
    assert regenerate(tree) == ['configs/at/README.md', 'configs/at/metafile.yml', 'configs/digits/metafile.yml',
                                'model-index.yml']
    content = yaml.safe_load((tree / 'configs/at/metafile.yml').read_text())
    assert content['Collections'] == [{
        'Name': 'AT', 'Metadata': {'Training Data': 'digit scenes'},
        'Paper': {'Title': 'Paying attention', 'URL': 'https://a.b/c'}, 'README': 'configs/at/README.md'}]
    assert content['Models'][1] == {
        'Name': 'at_resnet18-w8_digits', 'In Collection': 'AT', 'Config': 'configs/at/at_resnet18-w8_digits.py',
        'Metadata': {'Training Data': 'digit scenes', 'Epochs': 5, 'Student': 'digits/resnet18-w8_digits.py',
                     'Teacher': 'digits/resnet18-w32_digits.py',
                     'Teacher Weights': 'work_dirs/resnet18-w32_digits/epoch_9.pth'}}
    assert regenerate(tree) == []


def test_a_stock_pair_has_the_same_names_on_every_machine(tree):
    pair = tree / 'configs' / 'at' / 'at_zoo.py'
    pair.write_text('''
_base_ = ['mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', '../_base_/distill.py']
model = dict(
    _delete_=True, type='mmfeatdistill.FeatureDistiller', student={{_base_.model}},
    teacher=['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
             dict(config=__import__('mmfeatdistill').stock_config('mmdet::retinanet/retinanet_r101_fpn_1x_coco.py'),
                  checkpoint='a.pth')],
    objectives=dict())
''')
    regenerate(tree)
    assert models(tree)['at_zoo']['Metadata'] == {
        'Training Data': 'COCO', 'Epochs': 12, 'Student': 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py',
        'Teacher': ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'mmdet::retinanet/retinanet_r101_fpn_1x_coco.py'],
        'Teacher Weights': ['zoo', 'a.pth']}
    assert ('| `mmdet::retinanet/retinanet_r18_fpn_1x_coco.py` | `mmdet::retinanet/retinanet_r50_fpn_1x_coco.py`, '
            '`mmdet::retinanet/retinanet_r101_fpn_1x_coco.py` | COCO, 12 epochs | not measured here |'
            ) in (tree / 'configs/at/README.md').read_text()


def test_results_are_kept_shown_and_not_dropped_silently(tree):
    regenerate(tree)
    metafile, name = tree / 'configs' / 'at' / 'metafile.yml', 'at_resnet18-w8_digits'
    metafiles.record(metafile, name, RESULTS, 'https://a.b/c.pth')
    assert regenerate(tree) == ['configs/at/README.md']
    assert models(tree)[name]['Results'] == RESULTS and models(tree)[name]['Weights'] == 'https://a.b/c.pth'
    lines = (tree / 'configs/at/README.md').read_text().splitlines()
    row = next(line for line in lines if line.startswith(f'| [{name}'))
    assert row.endswith('| 40.25 box AP (COCO), [weights](https://a.b/c.pth) |')
    metafiles.record(metafile, name, [], None)
    assert models(tree)[name]['Results'] == RESULTS, 'nothing new is no reason to forget'

    (tree / 'configs' / 'at' / 'at_pspnet_r18-w8-d8_digits.py').unlink()
    assert regenerate(tree) == ['configs/at/README.md', 'configs/at/metafile.yml'] and list(models(tree)) == [name]
    (tree / 'configs' / 'at' / f'{name}.py').rename(tree / 'configs' / 'at' / 'at_renamed.py')
    with pytest.raises(ValueError, match=f"Results or Weights of '{name}', but the config is gone"):
        regenerate(tree)


def test_what_people_wrote_stays(tree):
    regenerate(tree)
    metafile, readme = tree / 'configs' / 'at' / 'metafile.yml', tree / 'configs' / 'at' / 'README.md'
    content = yaml.safe_load(metafile.read_text())
    content['Collections'][0]['Metadata']['Training Techniques'] = ['AdamW']
    content['Models'][0]['Metadata'].update({'Training Memory (GB)': 3, 'Epochs': 77})
    metafile.write_text(metafiles.dump(content))
    readme.write_text(readme.read_text().replace('5 epochs', '77 epochs') + '\nThe end.\n')
    assert regenerate(tree) == ['configs/at/README.md', 'configs/at/metafile.yml']
    first = models(tree)['at_pspnet_r18-w8-d8_digits']['Metadata']
    assert (first['Training Memory (GB)'], first['Epochs']) == (3, 6), 'a figure of the config is the config\'s'
    assert yaml.safe_load(metafile.read_text())['Collections'][0]['Metadata']['Training Techniques'] == ['AdamW']
    assert '77' not in readme.read_text() and readme.read_text().endswith(f'{metafiles.END}\n\nThe end.\n')


def test_a_teacher_that_is_not_there(tree):
    (tree / 'configs' / 'digits' / 'resnet18-w32_digits.py').unlink()
    with pytest.raises(ValueError, match='a teacher names the config .*resnet18-w32_digits.py, which does not exist'):
        metafiles.outdated(tree)


def test_nothing_is_recorded_of_a_config_that_is_not_there(tree):
    with pytest.raises(FileNotFoundError, match='no config nothing.py next to it'):
        metafiles.record(tree / 'configs' / 'at' / 'metafile.yml', 'nothing', RESULTS, None)


def test_the_command_says_what_is_out_of_date_and_writes_it(tree, capsys):
    command = load_script('tools/model_index.py')
    assert command.main([str(tree), '--check']) == 1
    assert 'model-index.yml: out of date' in capsys.readouterr().out and not (tree / 'model-index.yml').exists()
    assert command.main([str(tree)]) == 0 and (tree / 'model-index.yml').exists()
    assert command.main([str(tree), '--check']) == 0
