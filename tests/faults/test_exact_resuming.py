"""What a training changes besides weights: it is the same after resuming, or it is named when training starts."""
import logging
import random
from typing import Any, Optional

import mmdet.datasets.transforms  # noqa: F401 - registers
import mmdet.engine.hooks  # noqa: F401
import mmpretrain.datasets.samplers  # noqa: F401
import mmpretrain.engine.hooks  # noqa: F401
import numpy as np
import pytest
import torch
from mmdet.models import DetDataPreprocessor
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATA_SAMPLERS, DATASETS, HOOKS, MODELS, TRANSFORMS
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import nn
from torch.utils.data import BatchSampler, Sampler

from tests.engine.test_runner import Crash, same_tensors

NOISE = dict(type='ResumeNoise')


@pytest.fixture(autouse=True)
def _no_look_around(monkeypatch):
    """Each runner asks compilers for their versions, which takes longer than a training here."""
    monkeypatch.setattr(Runner, '_log_env', lambda self, env_cfg: None)
    monkeypatch.setattr('time.sleep', lambda seconds: None)


@DATASETS.register_module()
class ResumePictures(BaseDataset):
    """Sixteen pictures, upright or not, with a box each."""

    def load_data_list(self) -> list[dict]:
        return [dict(width=32, height=32 + 8 * (index % 3 == 0), index=index) for index in range(16)]

    def get_dataset_source(self, index: int) -> int:
        return index % 2

    def get_cat_ids(self, index: int) -> list[int]:
        return [index % 3]


@TRANSFORMS.register_module()
class ResumeLoad:
    def __call__(self, results: dict) -> dict:
        rng = np.random.default_rng(results['index'])
        height, width = results['height'], results['width']
        boxes = torch.tensor([[2., 2., 20., 24.]])
        return dict(img=rng.integers(0, 255, (height, width, 3)).astype(np.uint8), img_shape=(height, width),
                    gt_bboxes=HorizontalBoxes(boxes), gt_bboxes_labels=np.array([1]),
                    gt_ignore_flags=np.array([False]))


@TRANSFORMS.register_module()
class ResumeNoise:
    def __call__(self, results: dict) -> dict:
        return dict(results, img=results['img'] + np.float32(np.random.rand() + random.random()))


@TRANSFORMS.register_module()
class ResumePack:
    def __call__(self, results: dict) -> dict:
        image = np.ascontiguousarray(results['img'].transpose(2, 0, 1)).astype(np.float32)
        shape = image.shape[1:]
        sample = DetDataSample(metainfo=dict(img_shape=shape, pad_shape=shape))
        sample.gt_instances = InstanceData(bboxes=results['gt_bboxes'].tensor.clone())
        return dict(inputs=torch.from_numpy(image), data_samples=sample)


@MODELS.register_module()
class ResumeModel(BaseModel):
    """Learns from every pixel and from the size; with what is given, from its state too."""

    def __init__(self, data_preprocessor: Any = None, part: Optional[dict] = None) -> None:
        super().__init__(data_preprocessor)
        self.layer = nn.Conv2d(3, 2, 3)
        self.part = None if part is None else MODELS.build(part)

    def forward(self, inputs: torch.Tensor, data_samples: Any = None, mode: str = 'tensor') -> dict:
        out = self.layer(inputs / 255)
        if self.part is not None:
            out = self.part(out)
        return dict(loss=out.square().mean() * (1 + inputs.shape[-1] / 100))


def config(work_dir, pipeline=(NOISE,), loader=None, model=None, hooks=(), by_epoch=False, save=3) -> Config:
    """Eight iterations by iteration, or three epochs of four."""
    train_cfg = dict(by_epoch=True, max_epochs=3) if by_epoch else dict(type='IterBasedTrainLoop', max_iters=8)
    loader = dict(dict(
        batch_size=4, num_workers=0, persistent_workers=False, collate_fn=dict(type='pseudo_collate'),
        sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True)), **(loader or {}))
    loader = dict(dict(dataset=dict(
        type='ResumePictures', pipeline=[dict(type='ResumeLoad'), *pipeline, dict(type='ResumePack')])), **loader)
    return Config(dict(
        model=dict(dict(type='ResumeModel', data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=8)),
                   **(model or {})),
        train_dataloader=loader, train_cfg=train_cfg, work_dir=str(work_dir), log_level='WARNING',
        randomness=dict(seed=3), default_scope='mmdet',
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        experiment_name=f'run_{random.random()}',
        log_processor=dict(by_epoch=by_epoch),
        default_hooks=dict(logger=None, checkpoint=dict(
            type='CheckpointHook', by_epoch=by_epoch, interval=1 if by_epoch else save)),
        custom_hooks=[dict(type='mmfeatdistill.StudentCheckpointHook'), dict(type='mmfeatdistill.ExactResumeHook'),
                      *hooks]))


def trained(cfg: Config, crash_at: Optional[int] = None) -> Runner:
    runner = Runner.from_cfg(cfg)
    if crash_at is None:
        runner.train()
    else:
        runner.register_hook(Crash(at=crash_at))
        with pytest.raises(KeyboardInterrupt):
            runner.train()
    stream = getattr(getattr(runner.train_loop, 'dataloader_iterator', None), '_iterator', None)
    if hasattr(stream, '_shutdown_workers'):
        stream._shutdown_workers()  # left to the garbage collector, each takes five seconds to end
    return runner


def straight_and_resumed(tmp_path, crash_at: Optional[int] = None, **options: Any) -> tuple[Runner, Runner]:
    """Trains once without interruption, and once stopped and resumed."""
    crash_at = crash_at or (9 if options.get('by_epoch') else 5)
    straight = trained(config(tmp_path / 'straight', **options))
    trained(config(tmp_path / 'resumed', **options), crash_at)
    cfg = config(tmp_path / 'resumed', **options)
    cfg.resume = True
    return straight, trained(cfg)


def is_exact(straight: Runner, resumed: Runner) -> bool:
    assert straight.iter == resumed.iter > 6
    return same_tensors(straight.model.state_dict(), resumed.model.state_dict())


def said(caplog) -> str:
    return '\n'.join(record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)


@pytest.fixture
def warnings(caplog, monkeypatch):
    """mmengine's loggers tell nobody above them."""
    from mmengine.logging import MMLogger
    monkeypatch.setattr(MMLogger, 'callHandlers', lambda self, record: caplog.handler.emit(record))
    return caplog


# --- the order of the data -------------------------------------------------------------------


@DATA_SAMPLERS.register_module()
class ResumeDrawing(Sampler):
    """Draws from the generators of the process, one index at a time."""

    def __init__(self, dataset, seed=None) -> None:
        self.dataset = dataset

    def __iter__(self):
        for _ in range(len(self.dataset)):
            yield (random.randrange(4) + np.random.randint(4) + int(torch.randint(4, ()))) % 16

    def __len__(self) -> int:
        return len(self.dataset)


@DATA_SAMPLERS.register_module()
class ResumeCycle(Sampler):
    """Takes part of a cycle in each pass, and goes on there in the next one."""

    def __init__(self, dataset, seed=None, generator=True) -> None:
        self.dataset, self.position = dataset, 0
        self.order = np.random.default_rng(0).permutation(len(dataset))
        self.cycle = self._cycle() if generator else None

    def _cycle(self):
        while True:
            yield from range(0, len(self.dataset), 3)

    def __iter__(self):
        for _ in range(16):
            self.position = (self.position + 5) % 16
            yield next(self.cycle) if self.cycle else int(self.order[self.position])
        self.position = (self.position + 2) % 16

    def __len__(self) -> int:
        return 16


@DATA_SAMPLERS.register_module()
class ResumeShrinking(BatchSampler):
    """Batches of sizes that go on changing."""

    def __init__(self, sampler, batch_size, drop_last=False) -> None:
        super().__init__(sampler, batch_size, drop_last)
        self.size = 1

    def __iter__(self):
        batch = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.size:
                yield batch
                batch, self.size = [], self.size % 4 + 1


ASPECT = dict(batch_sampler=dict(type='mmdet.AspectRatioBatchSampler'))
DRAWING = dict(sampler=dict(type='ResumeDrawing'))


@pytest.mark.parametrize('loader', [
    ASPECT,
    dict(batch_size=[2, 3], batch_sampler=dict(type='mmdet.MultiDataAspectRatioBatchSampler', num_datasets=2)),
    dict(batch_sampler=dict(type='ResumeShrinking')),
    DRAWING,
    DRAWING | ASPECT,
    dict(sampler=dict(type='mmpretrain.RepeatAugSampler')),
    dict(sampler=dict(type='ResumeCycle')),
], ids=['aspect ratio', 'multi data', 'changing size', 'drawing', 'drawing by aspect ratio', 'repeated', 'cycle'])
@pytest.mark.parametrize('workers', [pytest.param(2, marks=pytest.mark.slow), 0])
def test_an_iteration_based_training_goes_on_with_the_data_that_come_next(tmp_path, loader, workers):
    if 'num_datasets' in loader.get('batch_sampler', {}):
        loader = dict(loader, sampler=dict(type='DefaultSampler'))  # to know its length, it goes through all data
    straight, resumed = straight_and_resumed(tmp_path, loader=dict(loader, num_workers=workers))
    assert is_exact(straight, resumed)


@pytest.mark.parametrize('loader', [
    dict(sampler=dict(type='ResumeCycle')), dict(sampler=dict(type='ResumeCycle', generator=False)),
    dict(batch_sampler=dict(type='ResumeShrinking')), DRAWING,
], ids=['generator', 'position', 'changing size', 'drawing'])
@pytest.mark.parametrize('workers', [pytest.param(2, marks=pytest.mark.slow), 0])
def test_an_epoch_begins_where_a_sampler_stood_at_the_end_of_the_last(tmp_path, loader, workers):
    assert is_exact(*straight_and_resumed(tmp_path, by_epoch=True, loader=dict(loader, num_workers=workers)))


def test_with_workers_a_batch_is_augmented_as_without_an_interruption(tmp_path):
    assert is_exact(*straight_and_resumed(tmp_path, loader=dict(ASPECT, num_workers=2)))


def test_no_data_are_loaded_to_get_where_the_training_stopped(tmp_path, monkeypatch):
    loaded = []
    call = ResumeLoad.__call__
    monkeypatch.setattr(ResumeLoad, '__call__', lambda self, results: (loaded.append(0), call(self, results))[1])
    straight_and_resumed(tmp_path, loader=ASPECT)
    assert len(loaded) == 4 * (8 + 6 + 5)  # the interrupted one had its sixth batch; the resumed one begins at three


# --- the data preprocessor and the model -------------------------------------------------------


@MODELS.register_module()
class ResumeDrift(nn.Module):
    """A batch augmentation with generators, a counter and tensors of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.generators = np.random.default_rng(5), np.random.RandomState(6), torch.Generator().manual_seed(7)
        self.numpy_generator, self.torch_generator, self.python = *self.generators[::2], random.Random(8)
        self.count, self.scale, self.shifts = 0, np.float32(1), {'x': [0.5]}
        self.register_buffer('mean', torch.zeros(()), persistent=False)
        self.last = torch.zeros(())

    def forward(self, inputs, data_samples=None):
        self.count += 1
        self.scale = self.scale * np.float32(1.01)
        self.shifts['x'].append(self.numpy_generator.random() + self.python.random())
        self.shifts['x'] = self.shifts['x'][-2:]
        self.last = self.mean + torch.rand((), generator=self.torch_generator)
        self.mean = 0.9 * self.mean + 0.1 * inputs.mean().detach()
        inputs = inputs * self.scale + sum(self.shifts['x']) + self.last + self.count
        return inputs if data_samples is None else (inputs, data_samples)


class _Object:
    """As the batch augmentations of mmpretrain: no module, and it holds others."""

    def __init__(self) -> None:
        self.augments = [ResumeDrift(), None]

    def __call__(self, inputs, data_samples):
        return self.augments[0](inputs, data_samples)


@MODELS.register_module()
class ResumePreprocessor(DetDataPreprocessor):
    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.augment = _Object()

    def forward(self, data, training=False):
        data = super().forward(data, training)
        data['inputs'], data['data_samples'] = self.augment(data['inputs'], data['data_samples'])
        return data


@MODELS.register_module()
class ResumeThawing(nn.Module):
    """A part of a model that is trained from an iteration on, as a hook has it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 1).requires_grad_(False)
        self.switched = False

    def forward(self, inputs):
        return self.layer(inputs) * (2 if self.switched else 1)


@HOOKS.register_module()
class ResumeSwitch(Hook):
    """Switches once, when the epoch comes, and not if it has passed."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def before_train_epoch(self, runner):
        if runner.epoch == self.epoch:
            runner.model.part.switched = True
            runner.model.part.layer.requires_grad_(True)


PREPROCESSOR = dict(type='DetDataPreprocessor', pad_size_divisor=8, batch_augments=[
    dict(type='BatchSyncRandomResize', random_size_range=(16, 64), size_divisor=8, interval=3)])


@pytest.mark.parametrize('model', [
    dict(data_preprocessor=PREPROCESSOR),
    dict(data_preprocessor=dict(PREPROCESSOR, batch_augments=[dict(type='ResumeDrift')])),
    dict(data_preprocessor=dict(type='ResumePreprocessor', pad_size_divisor=8)),
    dict(part=dict(type='ResumeDrift')),
], ids=['sizes', 'batch augmentation', 'objects', 'part of the model'])
@pytest.mark.parametrize('by_epoch', [False, True])
def test_what_changes_in_a_model_is_saved(tmp_path, model, by_epoch):
    options = dict(crash_at=9) if by_epoch else dict(save=4, crash_at=5)
    assert is_exact(*straight_and_resumed(tmp_path, model=model, by_epoch=by_epoch, **options))


def test_what_a_hook_has_switched_stays_switched(tmp_path):
    assert is_exact(*straight_and_resumed(
        tmp_path, by_epoch=True, model=dict(part=dict(type='ResumeThawing')),
        hooks=[dict(type='ResumeSwitch', epoch=1)]))


def test_the_file_is_plain_data_and_the_students_own(tmp_path):
    trained(config(tmp_path, model=dict(part=dict(type='ResumeDrift'))))
    from mmfeatdistill.checkpoints.safe_load import read_checkpoint_file
    saved = read_checkpoint_file(str(tmp_path / 'iter_6.pth'))
    assert saved['distiller']['state']['model.part'][2]['count'] == 6
    assert not any('count' in name for name in saved['state_dict'])
    cfg = config(tmp_path, model=dict(part=dict(type='ResumeDrift')))
    cfg.load_from = str(tmp_path / 'iter_6.pth')
    assert trained(cfg).model.part.count == 8  # begun anew


# --- caches and switches in the data ------------------------------------------------------------


@TRANSFORMS.register_module()
class ResumeCounter:
    """An augmentation that becomes stronger, and draws from a generator of its own."""

    def __init__(self) -> None:
        self.count, self.generator = 0, np.random.RandomState(1)

    def __call__(self, results: dict) -> dict:
        self.count += 1
        return dict(results, img=results['img'] + np.float32(self.count * self.generator.rand()))


MOSAIC = dict(type='CachedMosaic', img_scale=(32, 32), max_cached_images=6, random_pop=True)
MIXUP = dict(type='CachedMixUp', img_scale=(32, 32), max_cached_images=6)
KEEP = [dict(type='ResumeLoad'), MOSAIC, dict(type='ResumePack')]


@pytest.mark.parametrize('pipeline', [
    [MOSAIC, NOISE], [MOSAIC, MIXUP], [dict(type='RandomApply', transforms=[MOSAIC], prob=0.8)],
    [dict(type='RandomChoice', transforms=[[MOSAIC], [dict(type='ResumeCounter')]])]],
    ids=['mosaic', 'mixup', 'at random', 'counter'])
@pytest.mark.parametrize('by_epoch', [False, True])
def test_what_changes_in_transforms_is_saved(tmp_path, pipeline, by_epoch):
    assert is_exact(*straight_and_resumed(tmp_path, pipeline=pipeline, by_epoch=by_epoch))


def test_workers_of_an_epoch_begin_with_empty_caches_in_both(tmp_path, warnings):
    assert is_exact(*straight_and_resumed(tmp_path, pipeline=[MOSAIC], by_epoch=True, loader=dict(num_workers=2)))
    assert 'same weights' not in said(warnings)


@pytest.mark.parametrize('pipeline, named', [
    ([MOSAIC], 'dataset.pipeline.transforms.1.results_cache'),
    ([dict(type='RandomApply', transforms=[dict(type='ResumeCounter')])], 'transforms.0.count')])
def test_what_changes_in_workers_is_named_when_training_starts(tmp_path, warnings, pipeline, named):
    trained(config(tmp_path, pipeline=pipeline, loader=dict(num_workers=1)), crash_at=0)
    assert said(warnings).count('would not end with the same weights') == 1 and named in said(warnings)


def test_what_is_drawn_for_each_image_is_not_named(tmp_path, warnings):
    resize = dict(type='RandomResize', scale=(48, 48), ratio_range=(0.5, 2.0), keep_ratio=True)
    trained(config(tmp_path, pipeline=[resize, NOISE], loader=dict(num_workers=1)), crash_at=0)
    assert 'same weights' not in said(warnings)


@pytest.mark.parametrize('workers', [0, 2])
def test_a_pipeline_that_a_hook_has_put_in_is_put_in_again_with_its_cache(tmp_path, workers, warnings):
    hook = dict(type='PipelineSwitchHook', switch_epoch=1, switch_pipeline=KEEP)
    assert is_exact(*straight_and_resumed(tmp_path, by_epoch=True, hooks=[hook], loader=dict(num_workers=workers)))
    assert 'not exact' not in said(warnings)


@HOOKS.register_module()
class ResumePutIn(Hook):
    """As PipelineSwitchHook, but not if the epoch has passed."""

    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            from mmcv.transforms import Compose
            runner.train_dataloader.dataset.pipeline = Compose(KEEP)


def test_a_pipeline_that_is_not_put_in_again_is_named(tmp_path, warnings):
    straight_and_resumed(tmp_path, by_epoch=True, hooks=[dict(type='ResumePutIn')])
    assert 'Resuming is not exact: what has changed in dataset.pipeline while' in said(warnings)


def test_types_that_a_hook_leaves_out_stay_left_out(tmp_path):
    inner = dict(type='ResumePictures', pipeline=[dict(type='ResumeLoad')])
    mosaic = dict(type='Mosaic', img_scale=(32, 32))
    dataset = dict(type='MultiImageMixDataset', dataset=inner, pipeline=[mosaic, NOISE, dict(type='ResumePack')])

    class LeaveOut(Hook):
        def before_train_epoch(self, runner):
            if runner.epoch == 1:
                runner.train_dataloader.dataset.update_skip_type_keys(['Mosaic'])

    HOOKS.register_module(name='ResumeLeaveOut', module=LeaveOut, force=True)
    assert is_exact(*straight_and_resumed(
        tmp_path, by_epoch=True, loader=dict(dataset=dataset), hooks=[dict(type='ResumeLeaveOut')]))


def test_saving_within_epochs_is_named(tmp_path, warnings):
    cfg = config(tmp_path, by_epoch=True)
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=2)
    trained(cfg, crash_at=0)
    assert 'mmengine begins the epoch anew' in said(warnings)


@pytest.mark.parametrize('by_epoch, words', [(False, 'images are had again or never'), (True, 'number of iterations')])
def test_batches_of_another_size_are_named(tmp_path, warnings, by_epoch, words):
    def sized(batch_size):
        return config(tmp_path, by_epoch=by_epoch, loader=dict(batch_size=batch_size))
    trained(sized(4), crash_at=6)
    again = sized(4)
    again.resume = True
    trained(again, crash_at=7)
    assert 'images in a step' not in said(warnings)
    other = sized(2)
    other.resume = True
    trained(other, crash_at=7)
    assert 'Resumed with 2 images in a step, and saved with 4: ' in said(warnings) and words in said(warnings)
