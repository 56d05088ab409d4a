"""A student's config for data of one's own, in COCO's format."""
import json
import os
import os.path as osp
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple, Optional

from mmengine.config import Config

from mmfeatdistill.errors import ConfigError, did_you_mean
from mmfeatdistill.planning.config_file import code

_SUBSETS = ('train', 'val')


class OwnData(NamedTuple):
    """Images and annotations for training and validation.

    Attributes:
        root (str): Folder that everything is below.
        annotations (dict[str, str]): Path below it, of ``'train'`` and ``'val'``.
        images (dict[str, str]): Folder below it, with the same keys.
        classes (tuple[str, ...]): In the order of the labels.
    """

    root: str
    annotations: Mapping[str, str]
    images: Mapping[str, str]
    classes: tuple[str, ...]


def read_own_data(root: str, annotations: Mapping[str, Optional[str]], classes: Optional[Sequence[str]] = None,
                  images: Optional[Mapping[str, Optional[str]]] = None) -> OwnData:
    """Looks at data before anything is trained on them.

    Args:
        root (str): Folder that everything is below.
        annotations (dict[str, str]): Files of ``'train'`` and ``'val'``, below ``root`` or anywhere.
        classes (list[str], optional): Names of the classes. Defaults to None: all categories of the training file.
        images (dict[str, str], optional): Folders below ``root``. Defaults to None: they are searched for.

    Returns:
        OwnData: What was found.

    Raises:
        ConfigError: A file is missing or no COCO file, a class is in none, or there are no images.
    """
    if not osp.isdir(root):
        raise ConfigError(f'--data-root: there is no folder {root!r}.')
    contents, paths, folders = {}, {}, {}
    for subset in _SUBSETS:
        paths[subset], contents[subset] = _read(root, f'--{subset}-ann', annotations.get(subset))
        folders[subset] = _image_folder(root, subset, contents[subset], paths[subset], (images or {}).get(subset))
    names = [category['name'] for category in sorted(contents['train']['categories'], key=lambda entry: entry['id'])]
    for name in classes or ():
        if name not in names:
            raise ConfigError(f'--classes: {paths["train"]} has no category {name!r}{did_you_mean(name, names)} It has '
                              f'{", ".join(map(repr, names))}.')
    return OwnData(root, paths, folders, tuple(classes or names))


def student_text(about: str, base: str, cfg: Config, data: OwnData, classes: Optional[int]) -> str:
    """The text of a student's config with other data, and with as many classes as these have.

    Args:
        about (str): What it is; becomes a comment.
        base (str): Python code of the config that it inherits.
        cfg (Config): That config.
        data (OwnData): The data.
        classes (int, optional): How many the network of the config has.

    Returns:
        str: Complete.

    Raises:
        ConfigError: The data of the config are of another kind than COCO, or its heads hold the number of classes in
            another way than as ``num_classes``.
    """
    dataset = dict(data_root=data.root, metainfo=dict(classes=data.classes))
    lines = [f'# {line}' for line in about.splitlines()] + [f'_base_ = {base}']
    for subset in _SUBSETS:
        loader = f'{subset}_dataloader'
        own = dict(dataset, ann_file=data.annotations[subset], data_prefix=dict(img=data.images[subset]))
        value = _inside(cfg.get(loader), loader, own)
        lines.append(f'{loader} = {code(value, len(loader) + 3)}')
    evaluator = cfg.get('val_evaluator')
    if not isinstance(evaluator, Mapping) or 'ann_file' not in evaluator:
        raise ConfigError("STUDENT: --data-root is for students that are evaluated by CocoMetric; give a config with "
                          'data of your own.')
    lines += [f'val_evaluator = dict(ann_file={osp.join(data.root, data.annotations["val"])!r})',
              'test_dataloader = val_dataloader', 'test_evaluator = val_evaluator']
    places = list(_class_counts(cfg.model, 'model', classes))
    if classes != len(data.classes):
        lines += ['model = _base_.model', *(f'{place} = {len(data.classes)}' for place in places)]
    return '\n'.join(lines) + '\n'


def _read(root: str, option: str, file: Optional[str]) -> tuple[str, Any]:
    """An annotation file: its path below the root, and what is in it."""
    if file is None:
        raise ConfigError(f'{option}: is missing; data of your own need --data-root, --train-ann and --val-ann.')
    path = osp.join(root, file)
    if not osp.isfile(path):
        path = osp.abspath(file)
    if not osp.isfile(path):
        raise ConfigError(f'{option}: there is no file {file!r}, neither below {root!r} nor here.')
    try:
        with open(path) as opened:
            content = json.load(opened)
    except ValueError as error:
        raise ConfigError(f'{option}: {file} is no JSON ({error}).') from error
    missing = [key for key in ('images', 'annotations', 'categories')
               if not isinstance(content, Mapping) or not content.get(key)]
    if missing:
        raise ConfigError(f"{option}: {file} is no annotation file of COCO's format: it has no {missing[0]!r}.")
    return osp.relpath(path, root) if osp.exists(osp.join(root, file)) else path, content


def _image_folder(root: str, subset: str, content: Mapping, annotations: str, given: Optional[str]) -> str:
    """The folder below the root in which the first image of a file is."""
    first = content['images'][0]['file_name']
    if given is not None:
        folders = [given]
    else:
        stem = osp.splitext(osp.basename(annotations))[0]
        named = [osp.join(*parts) for parts in product(('', 'images'), ('', subset, stem))]
        folders = [*named, *(osp.relpath(folder, root) for folder in _folders(root, depth=3))]
    found = next((folder for folder in folders if osp.isfile(osp.join(root, folder, first))), None)
    if found is None:
        raise ConfigError(f'--{subset}-images: {first}, the first image of {annotations}, is not in '
                          f'{given if given is not None else "any folder"} below {root!r}; say where the images are.')
    return osp.join(found, '') if found else ''


def _folders(root: str, depth: int) -> Iterator[str]:
    for entry in sorted(os.scandir(root), key=lambda found: found.name):
        if entry.is_dir():
            yield entry.path
            if depth > 1:
                yield from _folders(entry.path, depth - 1)


def _inside(dataloader: Any, key: str, own: Mapping[str, Any]) -> dict:
    """What replaces the data of a dataset inside its wrappers."""
    path, dataset = ['dataset'], (dataloader or {}).get('dataset', {})
    while 'dataset' in dataset:
        path.append('dataset')
        dataset = dataset['dataset']
    if str(dataset.get('type')).rpartition('.')[2] != 'CocoDataset':
        raise ConfigError(f'STUDENT: --data-root is for students whose {key} reads a CocoDataset, got '
                          f'{dataset.get("type")!r}; give a config with data of your own.')
    value = dict(own)
    for name in reversed(path):
        value = {name: value}
    return value


def _class_counts(value: Any, key: str, classes: Optional[int]) -> Iterator[str]:
    """Where a model's config says how many classes there are."""
    if isinstance(value, Mapping):
        if 'num_things_classes' in value:
            raise ConfigError(f'STUDENT: {key} tells things from stuff; give a config with the classes of your data.')
        for name, item in value.items():
            if name == 'num_classes' and item == classes:
                yield f'{key}.{name}'
            yield from _class_counts(item, f'{key}.{name}', classes)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _class_counts(item, f'{key}[{index}]', classes)
