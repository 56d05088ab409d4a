"""Metafiles, the model index and the tables of the READMEs: what is told about configs, derived from the configs."""
import os.path as osp
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Optional, Union

import yaml
from mmengine.config import Config

from mmfeatdistill.atomic_files import atomic_write
from mmfeatdistill.distill_config import is_distillation, teacher_options
from mmfeatdistill.release.markdown import markdown_table
from mmfeatdistill.zoo.packages import TASK_LIBRARIES, config_folder, stock_config

BEGIN = '<!-- configs: python tools/model_index.py -->'
END = '<!-- end of configs -->'
DIGITS = 'digit scenes'
_DATA = {'CocoDataset': 'COCO', 'CityscapesDataset': 'Cityscapes', 'ImageNet': 'ImageNet-1k', 'CIFAR10': 'CIFAR-10',
         'CIFAR100': 'CIFAR-100', 'VOCDataset': 'PASCAL VOC', 'VOC': 'PASCAL VOC',
         'PascalVOCDataset': 'PASCAL VOC 2012', 'ADE20KDataset': 'ADE20K', 'coco': 'COCO'}
"""What papers call the data of the MM libraries' dataset classes, or those in a folder that any class may read."""
_DERIVED = ('Training Data', 'Epochs', 'Iterations', 'Student', 'Teacher', 'Teacher Weights')
"""Metadata of a model that come from its config; others are kept as somebody wrote them."""


def generated(root: Union[str, Path]) -> dict[Path, str]:
    """Every generated text of a source tree, as it should be.

    The entries of the metafiles are derived from the configs; ``Results``, ``Weights``, collections and whatever
    else was written into a metafile are kept. The model index lists all metafiles. A README gets the table of its
    folder between :data:`BEGIN` and :data:`END`, or at its end if it has no such lines yet.

    Args:
        root (str | Path): The source tree.

    Returns:
        dict[Path, str]: Content by file.

    Raises:
        ValueError: A metafile has results or weights of a config that is not there any more, or a config names a
            teacher's config that is not there.
    """
    root = Path(root).resolve()
    texts, imported = {}, []
    for folder in sorted({path.parent for path in (root / 'configs').glob('*/*.py')}):
        if folder.name == '_base_':
            continue
        metafile = _metafile(folder, root)
        texts[folder / 'metafile.yml'] = dump(metafile)
        imported.append(f'configs/{folder.name}/metafile.yml')
        readme = folder / 'README.md'
        if readme.is_file():
            texts[readme] = with_table(readme.read_text(), table(metafile['Models']))
    texts[root / 'model-index.yml'] = dump({'Import': imported})
    return texts


def outdated(root: Union[str, Path]) -> dict[Path, str]:
    """Those of :func:`generated` that are not what the files hold.

    Args:
        root (str | Path): The source tree.

    Returns:
        dict[Path, str]: What the files should hold.

    Raises:
        ValueError: As :func:`generated`.
    """
    return {path: text for path, text in generated(root).items()
            if not path.is_file() or path.read_text() != text}


def record(metafile: Union[str, Path], name: str, results: Sequence[Mapping[str, Any]],
           weights: Optional[str]) -> None:
    """Writes what was measured and released of one config into the metafile of its folder.

    Args:
        metafile (str | Path): ``configs/<folder>/metafile.yml``; need not exist.
        name (str): Of the config, without ``.py``.
        results (Sequence[dict]): Entries of ``Results``; those that are there are kept if empty.
        weights (str, optional): Address of the checkpoint.

    Raises:
        FileNotFoundError: No such config lies next to the metafile.
    """
    path = Path(metafile).resolve()
    config = path.with_name(f'{name}.py')
    if not config.is_file():
        raise FileNotFoundError(f'{metafile}: there is no config {name}.py next to it, so nothing can be said of it '
                                'there; give the name of the config.')
    content = _read(path.parent, path.parents[2])
    models = {model['Name']: model for model in content['Models']}
    models[name] = _model(config, content, path.parents[2])
    if results:
        models[name]['Results'] = [dict(result) for result in results]
    if weights:
        models[name]['Weights'] = weights
    atomic_write(path, dump(_with_models(content, list(models.values()))))


def data_name(dataloader: Mapping[str, Any]) -> str:
    """The name of the data that a config reads.

    Args:
        dataloader (dict): As in a config; of wrapped or concatenated datasets the innermost first one counts.

    Returns:
        str: As papers call it where dataset class or folder are well known, else the folder's name.

    Examples:
        >>> data_name(dict(dataset=dict(type='RepeatDataset', times=3, dataset=dict(type='CIFAR100'))))
        'CIFAR-100'
    """
    dataset: Any = dataloader['dataset']
    while 'dataset' in dataset or 'datasets' in dataset:
        dataset = dataset['dataset'] if 'dataset' in dataset else dataset['datasets'][0]
    if 'data/digits' in str(dataset.get('data_root', '')):
        return DIGITS
    kind = getattr(dataset['type'], '__name__', str(dataset['type'])).rpartition('.')[2]
    folder = osp.basename(str(dataset.get('data_root', '')).rstrip('/'))
    return _DATA.get(kind) or _DATA.get(folder) or folder or kind


def with_table(readme: str, rows: str) -> str:
    r"""A README with another table.

    Args:
        readme (str): Its text.
        rows (str): The table.

    Returns:
        str: The text with the table between the marking lines; under a heading at the end if it has none.

    Examples:
        >>> text = with_table('# OFD\n', '| config |\n')
        >>> with_table(text, '| config |\n') == text
        True
    """
    block = f'{BEGIN}\n{rows}{END}'
    if BEGIN in readme and END in readme:
        before, _, rest = readme.partition(BEGIN)
        return before + block + rest.partition(END)[2]
    return f'{readme.rstrip()}\n\n## Configs\n\n{block}\n'


def table(models: Sequence[Mapping[str, Any]]) -> str:
    """The table of a folder's README.

    Args:
        models (Sequence[dict]): Entries of its metafile.

    Returns:
        str: In Markdown; students and teachers have columns where there is any.
    """
    distilled = any('Teacher' in model['Metadata'] for model in models)
    head = ['config', *(['student', 'teacher'] if distilled else []), 'data, schedule', 'result']
    rows = []
    for model in models:
        told = model['Metadata']
        pair = [_linked(told.get('Student', '-')), _teachers(told)] if distilled else []
        file = osp.basename(model['Config'])
        rows.append([f'[{file}]({file})', *pair, f'{told["Training Data"]}, {_schedule(told)}', _result(model)])
    return markdown_table(head, rows) + '\n'


def dump(content: Mapping[str, Any]) -> str:
    """YAML as the MM libraries write it: in the order given, lists indented, no line broken.

    Args:
        content (dict): Of lists, dicts, strings and numbers.

    Returns:
        str: The text, with an empty line between the entries of ``content``.
    """
    return '\n'.join(yaml.dump({key: value}, Dumper=_Indented, sort_keys=False, allow_unicode=True, width=10 ** 6)
                     for key, value in content.items())


class _Indented(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        return super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _metafile(folder: Path, root: Path) -> dict[str, Any]:
    content = _read(folder, root)
    configs = list(folder.glob('*.py'))
    for model in content['Models']:
        if model['Name'] not in {config.stem for config in configs} and ('Results' in model or 'Weights' in model):
            raise ValueError(f'{folder / "metafile.yml"} has Results or Weights of {model["Name"]!r}, but the config '
                             'is gone. Put the config back, rename the entry with it, or remove the entry.')
    return _with_models(content, [_model(config, content, root) for config in configs])


def _read(folder: Path, root: Path) -> dict[str, Any]:
    path = folder / 'metafile.yml'
    content = yaml.safe_load(path.read_text()) if path.is_file() else {}
    return {'Collections': content.get('Collections') or [_collection(folder, root)],
            'Models': content.get('Models') or []}


def _with_models(content: Mapping[str, Any], models: list[dict[str, Any]]) -> dict[str, Any]:
    """A metafile with other models, sorted; its first collection, the folder's own, names all their data."""
    models = sorted(models, key=lambda model: model['Name'])
    data = sorted({model['Metadata']['Training Data'] for model in models})
    own, *others = content['Collections']
    head = {'Name': own['Name'],
            'Metadata': {**(own.get('Metadata') or {}), 'Training Data': data[0] if len(data) == 1 else data}}
    return {'Collections': [{**head, **own, **head}, *others], 'Models': models}


def _collection(folder: Path, root: Path) -> dict[str, Any]:
    """What the head of a README says of a method: its name, and its paper as ``> [title](address)``."""
    collection: dict[str, Any] = {'Name': folder.name}
    readme = folder / 'README.md'
    if readme.is_file():
        text = readme.read_text()
        if heading := re.search(r'^# (.+)$', text, re.M):
            collection['Name'] = heading[1].strip()
        if paper := re.search(r'^> \[(.+?)\]\((\S+?)\)', text, re.M):
            collection['Paper'] = {'Title': paper[1], 'URL': paper[2]}
        collection['README'] = readme.relative_to(root).as_posix()
    return collection


def _model(config: Path, content: Mapping[str, Any], root: Path) -> dict[str, Any]:
    known: Mapping[str, Any] = next((model for model in content['Models'] if model['Name'] == config.stem), {})
    kept = {key: value for key, value in (known.get('Metadata') or {}).items() if key not in _DERIVED}
    derived = {'Name': config.stem, 'In Collection': known.get('In Collection', content['Collections'][0]['Name']),
               'Config': config.relative_to(root).as_posix(), 'Metadata': {**_metadata(str(config), root), **kept}}
    return {**derived, **known, **derived}  # first to be at the front, then to replace what is known


def _metadata(config: str, root: Path) -> dict[str, Any]:
    cfg = _load(config)
    told: dict[str, Any] = {'Training Data': data_name(cfg.train_dataloader)}
    for key, setting in (('Epochs', 'max_epochs'), ('Iterations', 'max_iters')):
        if setting in cfg.train_cfg:
            told[key] = cfg.train_cfg[setting]
    if is_distillation(cfg):
        student = _student_file(config)
        told['Student'] = _shown(student, root) if student else str(cfg.model.student.get('type'))
        teachers = teacher_options(cfg.model.teacher).values()
        names = [_shown(teacher['config'], root) if 'config' in teacher
                 else str(teacher['model'].get('name', teacher['model'].get('type'))) for teacher in teachers]
        weights = [str(teacher.get('checkpoint', 'zoo')) for teacher in teachers]
        several = len(teachers) > 1
        told.update({'Teacher': names if several else names[0],
                     'Teacher Weights': weights if several else weights[0]})
    return told


def _student_file(config: str) -> Optional[str]:
    """The file from which a distillation config inherits its student."""
    for base in _bases(config):
        cfg = _load(base)
        if 'model' in cfg:
            return _student_file(base) if is_distillation(cfg) else base
    return None


def _bases(config: str) -> Iterator[str]:
    for base in Config._get_base_files(config):
        # mmengine would read all metafiles of the library to find the file.
        yield stock_config(base) if '::' in base else osp.abspath(osp.join(osp.dirname(config), base))


def _shown(config: str, root: Path) -> str:
    """A config's name on every machine: ``'mmdet::...'`` or zoo name, or for one of ours the path below ``configs``."""
    if not osp.isfile(config):
        if config.endswith('.py') and '::' not in config:
            raise ValueError(f'a teacher names the config {config}, which does not exist.')
        return config
    path = osp.normpath(osp.abspath(config))
    for library, folder in _library_folders():
        if path.startswith(folder + osp.sep):
            return f'{library}::{Path(path).relative_to(folder).as_posix()}'
    return Path(osp.relpath(path, root / 'configs')).as_posix()


@cache
def _load(config: str) -> Config:
    return Config.fromfile(config)


@cache
def _library_folders() -> list[tuple[str, str]]:
    folders = []
    for library in TASK_LIBRARIES:
        try:
            folders.append((library, osp.normpath(config_folder(library))))
        except ImportError:
            pass  # nothing inherits from what is not installed
    return folders


def _linked(config: str) -> str:
    if '::' in config or not config.endswith('.py'):
        return f'`{config}`'
    return f'[{osp.basename(config)}](../{config})'


def _teachers(told: Mapping[str, Any]) -> str:
    if 'Teacher' not in told:
        return '-'
    teachers = told['Teacher'] if isinstance(told['Teacher'], list) else [told['Teacher']]
    counted = {teacher: teachers.count(teacher) for teacher in teachers}
    return ', '.join(f'{count} of {_linked(teacher)}' if count > 1 else _linked(teacher)
                     for teacher, count in counted.items())


def _schedule(told: Mapping[str, Any]) -> str:
    return f'{told["Epochs"]} epochs' if 'Epochs' in told else f'{told.get("Iterations", "?")} iterations'


def _result(model: Mapping[str, Any]) -> str:
    found = [f'{value:g} {metric} ({result["Dataset"]})' for result in model.get('Results') or []
             for metric, value in result['Metrics'].items()]
    if not found:
        # They are measured by the grid, whose report is their one source.
        is_in_grid = model['Metadata']['Training Data'] == DIGITS and model['Name'].endswith('_digits')
        found = ['[benchmark](../../docs/benchmarks.md)' if is_in_grid
                 else 'not measured here']
    if 'Weights' in model:
        found.append(f'[weights]({model["Weights"]})')
    return ', '.join(found)
