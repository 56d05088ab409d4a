"""The configs of real datasets, made small enough for a test: little data, small images, few proposals."""
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader

from mmfeatdistill.distill_config import is_distillation, student_config
from mmfeatdistill.teacher.initialization import init_unset_parameters
from mmfeatdistill.zoo.configs import build_model, load_config, zoo_entries
from mmfeatdistill.zoo.packages import TASK_LIBRARIES
from tests.conftest import load_script
from tests.helpers import tiny_data
from tests.helpers.runs import CONFIGS, teachers_of

SHRINK = 8
IMAGE_SIZES = ('scale', 'scales', 'img_scale', 'size', 'crop_size', 'resize_size', 'min_size', 'target_size', 'stride')


def make_data(folder: Path) -> None:
    """All datasets below ``folder/data``, where the stock configs look for them."""
    from mmdet.datasets import CocoDataset, VOCDataset
    from mmseg.datasets import CityscapesDataset
    data = folder / 'data'
    tiny_data.make_coco(data / 'coco', CocoDataset.METAINFO['classes'])
    tiny_data.make_voc(data / 'VOCdevkit', VOCDataset.METAINFO['classes'])
    tiny_data.make_cityscapes(data / 'cityscapes', CityscapesDataset.METAINFO['classes'])
    tiny_data.make_imagenet(data / 'imagenet')
    tiny_data.make_cifar100(data / 'cifar100')
    os.symlink('VOCdevkit/VOC2007', data / 'VOC2007')  # where mmpretrain looks
    for split in ('train', 'val'):  # of 2014, for several labels
        os.symlink(f'{split}2017', data / 'coco' / f'{split}2014')
        os.symlink(f'instances_{split}2017.json', data / 'coco' / 'annotations' / f'instances_{split}2014.json')
    load_script('tools/dataset_converters/coco_multi_label.py').main([str(data / 'coco')])


def tiny(path: str, work_dir: Path) -> Config:
    """A config below configs/ with two iterations of two images, then a validation.

    What is changed is only how much is computed: sizes, numbers, and where pretrained backbones start. Datasets,
    pipelines, evaluators, networks, schedules and hooks stay those of the config.
    """
    cfg = Config.fromfile(CONFIGS / path)
    cfg.merge_from_dict({'work_dir': str(work_dir), 'log_level': 'ERROR', 'default_hooks.logger.interval': 1})
    _tiny_loaders(cfg)
    _tiny_schedule(cfg)
    if 'default_scope' in cfg and cfg.default_scope != 'mmpretrain':  # their images are small as they are
        for name in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'train_pipeline', 'test_pipeline',
                     'custom_hooks'):
            if cfg.get(name):
                cfg[name] = _small_images(cfg[name])
    networks = [cfg.model] if 'student' not in cfg.model else [cfg.model.student]
    for network in networks:
        small_network(network)
    if any(objective and objective.type == 'SharedQueries' for objective in cfg.model.get('objectives', {}).values()):
        # Its decoder runs as well, and small images do not have room for 900 queries.
        teacher = load_config(cfg.model.teacher.config).model
        cfg.model.teacher = dict(model=dict(teacher, num_queries=50, _scope_='mmdet'), checkpoint=None)
    return cfg


def _tiny_loaders(cfg: Config) -> None:
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader:
            loader.update(num_workers=0, persistent_workers=False, batch_size=2 if split == 'train' else 1)
            for workers_only in ('prefetch_factor', 'pin_memory'):
                loader.pop(workers_only, None)
    cfg.train_dataloader.drop_last = False


def _tiny_schedule(cfg: Config) -> None:
    if cfg.train_cfg.get('by_epoch', True) and cfg.train_cfg.get('type') != 'IterBasedTrainLoop':
        cfg.train_cfg.update(max_epochs=1, val_interval=1, val_begin=1)
        cfg.train_dataloader.num_batch_per_epoch = 2
    else:
        cfg.train_cfg.update(max_iters=2, val_interval=2, val_begin=1)
        cfg.default_hooks.checkpoint.interval = 2
    cfg.train_cfg.pop('dynamic_intervals', None)
    for scheduler in cfg.param_scheduler if isinstance(cfg.get('param_scheduler'), list) else []:
        scheduler.setdefault('end', scheduler.get('begin', 0) + 300)  # on its own it would be that of training


def _small_images(value: Any) -> Any:
    """All image sizes in pipelines divided, wherever they stand; SSD's 300 pixels and the like stay."""
    if isinstance(value, Mapping):
        return type(value)({name: _divided(item) if name in IMAGE_SIZES else _small_images(item)
                            for name, item in value.items()})
    return type(value)(map(_small_images, value)) if isinstance(value, (list, tuple)) else value


def _divided(size: Any) -> Any:
    if isinstance(size, (list, tuple)):
        return type(size)(map(_divided, size)) if not isinstance(size[0], int) or max(size) > 320 else size
    # Networks that pad nothing, such as RTMDet, need multiples of their largest stride.
    return max(32, size // SHRINK // 32 * 32) if isinstance(size, int) and size > 320 else size


def small_network(model: Any) -> None:
    """A student without downloads, with few proposals, and BatchNorm for what one process on a CPU has to train."""
    for node in nodes(model):
        if isinstance(node.get('init_cfg'), Mapping) and 'checkpoint' in node['init_cfg']:
            node['init_cfg'] = None
        for downloaded in {'pretrained', 'teacher_ckpt'}.intersection(node):
            node[downloaded] = None
        if node.get('type') in ('SyncBN', 'MMSyncBN'):
            node['type'] = 'BN'
        if str(node.get('type')).endswith('RandomSampler'):
            node['num'] = 16
        for name in ('nms_pre', 'max_per_img', 'num_queries'):
            if name in node:
                node[name] = min(node[name], 50)
        # An untrained detector is sure of nothing and its boxes may be inside out; without any nothing is evaluated.
        for name, everything in dict(score_thr=0., filter_thr=0., mask_thr=0., min_bbox_size=-1).items():
            if name in node:
                node[name] = everything
    preprocessor = model.get('data_preprocessor')
    if preprocessor and preprocessor.get('size'):
        preprocessor['size'] = _divided(preprocessor['size'])
    if preprocessor and preprocessor.get('batch_augments') and 'Seg' not in str(preprocessor.get('type')):
        preprocessor['batch_augments'] = _small_images(preprocessor['batch_augments'])
    test_cfg = model.get('test_cfg')
    if test_cfg and test_cfg.get('mode') == 'slide':
        test_cfg.update(_small_images(test_cfg))


def nodes(value: Any) -> Iterator[dict]:
    if isinstance(value, Mapping):
        yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from nodes(item)


def weights_without_downloads() -> Callable:
    """Takes the place of downloading: weights of the very model whose metafile names the URL, untrained."""
    configs = {entry.weights: entry.config for library in TASK_LIBRARIES for entry in zoo_entries(library)
               if isinstance(entry.weights, str)}

    def load(filename: str, map_location: Any = None, **_: Any) -> dict:
        assert filename in configs, f'{filename} is the weights of no zoo model'
        return untrained(configs[filename])
    return load


def untrained(config: str) -> dict:
    """What a checkpoint of a config's model holds, of a distillation's its student."""
    cfg = load_config(config)
    model = build_model(student_config(cfg) if is_distillation(cfg) else cfg)
    init_unset_parameters(model)  # a trained network is never NaN, memory may be
    return dict(state_dict=model.state_dict())


def put_trained_teachers(cfg: Config) -> None:
    """Writes what a user trains first, teachers and earlier stages, below the current directory."""
    first = {teacher.get('checkpoint'): teacher.get('config') for teacher in teachers_of(cfg)}
    if str(cfg.get('load_from')).startswith('work_dirs/'):
        [stage] = CONFIGS.glob(f'*/{Path(cfg.load_from).parent.name}.py')
        first[cfg.load_from] = str(stage)
    for path, config in first.items():
        if path and path.startswith('work_dirs/') and not os.path.exists(path):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            torch.save(untrained(config), path)


def patch_downloads(monkeypatch) -> None:
    """No network: zoo weights are made on the spot, and CIFAR's pickles are not those of the published archive."""
    from mmpretrain.datasets import CIFAR100
    for prefix in ('http://', 'https://'):
        monkeypatch.setitem(CheckpointLoader._schemes, prefix, weights_without_downloads())
    monkeypatch.setattr(CIFAR100, 'train_list', [['train', None]])
    monkeypatch.setattr(CIFAR100, 'test_list', [['test', None]])
