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
        classes (tuple[str, ...]): In the order of the labels, which mmdet takes from the annotation file.
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
    return OwnData(root, paths, folders, _labels(classes, contents, paths))


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
    if not osp.exists(path):
        path = osp.abspath(file)
    if osp.isdir(path):
        raise ConfigError(f'{option}: {file!r} is a folder; expected a JSON file in it.')
    if not osp.isfile(path):
        raise ConfigError(f'{option}: there is no file {file!r}, neither below {root!r} nor here.')
    try:
        with open(path) as opened:
            content = json.load(opened)
    except ValueError as error:
        raise ConfigError(f'{option}: {file} is no JSON ({error}).') from error
    for key, needed in _ENTRIES.items():
        entries = content.get(key) if isinstance(content, Mapping) else None
        if not isinstance(entries, list) or not entries:
            raise ConfigError(f"{option}: {file} is no annotation file of COCO's format: it has no {key!r}.")
        for name in needed:
            if not all(isinstance(entry, Mapping) and name in entry for entry in entries):
                raise ConfigError(f"{option}: {file} is no annotation file of COCO's format: not all of its {key!r} "
                                  f'have {name!r}.')
    return osp.relpath(path, root) if osp.exists(osp.join(root, file)) else path, content


_ENTRIES = dict(images=('id', 'file_name'), annotations=('image_id', 'category_id', 'bbox'), categories=('id', 'name'))
"""What a file of boxes has, and what each entry of it."""


def _labels(classes: Optional[Sequence[str]], contents: Mapping[str, Any], paths: Mapping[str, str]) -> tuple[str, ...]:
    """The classes in the order of both files, since mmdet numbers labels by it, whatever the order of the names."""
    names = {subset: [str(entry['name']) for entry in contents[subset]['categories']] for subset in _SUBSETS}
    for subset, own in names.items():
        twice = [name for name in own if own.count(name) > 1]
        if twice:
            raise ConfigError(f'--{subset}-ann: {paths[subset]} has several categories {twice[0]!r}; give each its '
                              'own name.')
    wanted = list(classes or names['train'])
    for option, subset in (('--classes', 'train'), ('--val-ann', 'val')):
        for name in wanted:
            if name not in (own := names[subset]):
                raise ConfigError(f'{option}: {paths[subset]} has no category {name!r}{did_you_mean(name, own)} It has '
                                  f'{", ".join(map(repr, own))}.')
    train, val = ([name for name in names[subset] if name in wanted] for subset in _SUBSETS)
    if train != val:
        raise ConfigError(f'--val-ann: {paths["val"]} has the categories in another order ({", ".join(val)}) than '
                          f'{paths["train"]} ({", ".join(train)}). mmdet numbers classes by this order, so what is '
                          'predicted would be scored as other classes; sort both alike.')
    kept = {entry['id'] for entry in contents['train']['categories'] if entry['name'] in train}
    if not any(entry['category_id'] in kept for entry in contents['train']['annotations']):
        raise ConfigError(f'--train-ann: nothing in {paths["train"]} is of the categories {", ".join(train)}.')
    return tuple(train)


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
