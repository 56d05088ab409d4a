"""Training images shown to objectives before the first iteration, inside real runners."""
import math
import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner
from torch.utils.data import IterableDataset

from mmfeatdistill.engine.hooks import StatisticsHook, statistics_hook
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.objectives import FeatureMatch
from mmfeatdistill.objectives.statistics import NeedsStatistics
from mmfeatdistill.registry import MODELS
from tests.helpers.runs import DISTILLED, small, train


@MODELS.register_module()
class Looker(NeedsStatistics, FeatureMatch):
    """Wants to see some images, and notes which it saw."""

    def __init__(self, wanted, **options):
        super().__init__(**options)
        self.wanted, self.batches, self.conclusions = wanted, [], 0
        self.register_buffer('seen', torch.tensor(0))

    @property
    def images_wanted(self):
        return 0 if self.seen else self.wanted

    def update_statistics(self, teachers):
        [teacher] = teachers
        assert not torch.is_grad_enabled() and len(teacher['backbone'][0]) == len(teacher.inputs)
        self.batches.append([sample.img_path for sample in teacher.data_samples])
        self.mixed = [sample.gt_score.max() < 1 for sample in teacher.data_samples if 'gt_score' in sample]
        self.dtype = teacher['backbone'][0].dtype
        torch.rand(3), random.random(), np.random.rand()

    def finish_statistics(self):
        self.conclusions += 1
        self.seen.fill_(len(self.images))

    @property
    def images(self):
        return [path for batch in self.batches for path in batch]


@OPTIM_WRAPPERS.register_module()
class HalfPrecision(OptimWrapper):
    """mmengine's own mixed precision needs an accelerator."""

    @contextmanager
    def optim_context(self, model):
        with torch.autocast('cpu', torch.bfloat16):
            yield


def without_validation(cfg):
    cfg.update({f'val_{part}': None for part in ('cfg', 'dataloader', 'evaluator')})
    cfg.default_hooks.checkpoint.save_best = None
    return cfg


def looking(tmp_path, wanted, **options):
    """A config of a classifier with one such objective for each number of images."""
    options = {'train_cfg__max_epochs': 1, 'train_dataloader__num_workers': 0} | options
    cfg = without_validation(small(DISTILLED['classification'], tmp_path, **options))
    stage4 = cfg.model.objectives.pop('stage4')
    for number, count in enumerate(wanted):
        cfg.model.objectives[f'look{number}'] = dict(stage4, type='Looker', wanted=count)
    return cfg


def lookers(runner):
    return list(runner.model.objectives.values())


def random_states():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


def test_every_image_once_and_the_first_of_them_for_those_that_want_fewer(in_digits, tmp_path):
    runner = train(looking(tmp_path, [math.inf, 11, 3, 0]))
    entire, some, few, none = lookers(runner)
    paths = [sample['data_samples'].img_path for sample in runner.train_dataloader.dataset]
    assert entire.images != paths and sorted(entire.images) == sorted(paths)
    assert some.images == entire.images[:11] and few.images == entire.images[:3]
    assert [len(batch) for batch in some.batches] == [3, 5, 3], 'nobody sees an image beyond what it wants'
    assert [o.conclusions for o in (entire, some, few, none)] == [1, 1, 1, 0]


def test_processes_share_the_images_without_repeating_any(in_digits, tmp_path, monkeypatch):
    runner = train(looking(tmp_path, [5, math.inf], train_cfg__max_epochs=0, param_scheduler=[]))

    def shares(world):
        for rank in range(world):
            for looker in lookers(runner):
                looker.batches, looker.conclusions = [], 0
                looker.seen.zero_()
            monkeypatch.setattr(statistics_hook, 'get_dist_info', lambda rank=rank: (rank, world))
            torch.manual_seed(rank)  # as with diff_rank_seed
            before = random_states()
            StatisticsHook().before_train(runner)
            assert random_states() == before
            assert [looker.conclusions for looker in lookers(runner)] == [1, 1], 'with or without images'
            yield [looker.images for looker in lookers(runner)]

    (alone,), three, six = ([*shares(world)] for world in (1, 3, 6))
    assert [[len(images) for images in share] for share in three] == [[2, 11], [2, 11], [1, 10]]
    assert [len(few) for few, _ in six] == [1] * 5 + [0]
    for shared in (three, six):
        for images, parts in zip(alone, zip(*shared)):
            assert sorted(images) == sorted(sum(parts, []))


@pytest.mark.parametrize('workers, by_iteration', [(1, False), (0, True)])
def test_training_is_bit_for_bit_what_it_is_without_the_pass(in_digits, tmp_path, workers, by_iteration):
    def trained(name, wanted):
        cfg = looking(tmp_path / name, [wanted], train_dataloader__num_workers=workers)
        # ExactResumeHook would seed every iteration anew.
        cfg.custom_hooks = [hook for hook in cfg.custom_hooks if 'ExactResume' not in hook.type]
        if by_iteration:
            cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=3)
            cfg.train_dataloader.sampler = dict(type='InfiniteSampler')
            cfg.param_scheduler = []
            cfg.default_hooks.checkpoint = None
        return train(cfg)

    with_pass, without = trained('with', math.inf), trained('without', 0)
    assert len(lookers(with_pass)[0].images) == 32 and not lookers(without)[0].images
    for (name, first), second in zip(with_pass.model.state_dict().items(), without.model.state_dict().values()):
        assert torch.equal(first, second) or name.endswith('.seen'), name


def test_a_resumed_training_does_not_repeat_it(in_digits, tmp_path):
    def shown(epochs, **options):
        [looker] = lookers(train(looking(tmp_path, [9], train_dataloader__num_batch_per_epoch=2,
                                         train_cfg__max_epochs=epochs, **options)))
        return len(looker.images)

    assert [shown(1), shown(2, resume=True)] == [9, 0]
    assert shown(1, load_from=str(tmp_path / 'epoch_2.pth')) == 9, 'weights alone bring no findings'


def test_without_batch_augmentations_in_the_precision_of_the_training(in_digits, tmp_path):
    cfg = looking(tmp_path, [8])
    cfg.model.student.data_preprocessor = dict(cfg.data_preprocessor, type='ClsDataPreprocessor', batch_augments=dict(
        augments=[dict(type='Mixup', alpha=0.8)]))
    cfg.model.student['head'].update(loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
                                     cal_acc=False)
    cfg.optim_wrapper.type = 'HalfPrecision'
    runner = train(cfg)
    [looker] = lookers(runner)
    assert looker.mixed == [False] * 8 and looker.dtype == torch.bfloat16
    assert runner.model.data_preprocessor.batch_augments is not None


def test_detectors_batch_by_a_sampler_of_batches(in_digits, tmp_path):
    cfg = without_validation(small(DISTILLED['faster_rcnn'], tmp_path, train_cfg__max_epochs=1,
                                   train_dataloader__num_workers=0))
    cfg.train_dataloader.batch_sampler = dict(type='AspectRatioBatchSampler')
    cfg.model.objectives.fpn.update(type='Looker', wanted=10, taps=['neck', 'backbone'])
    [looker] = lookers(train(cfg))
    assert [len(batch) for batch in looker.batches] == [8, 2]


class _Stream(IterableDataset):
    def __iter__(self):
        return iter([dict(inputs=torch.zeros(3, 64, 64))])


@pytest.mark.parametrize('dataset, words', [
    (_Stream(), "'look0' must see training images .* is a stream .*_Stream.; a dataset with a length"),
    (torch.utils.data.Subset(list(range(8)), []), "'look0' must see training images .* is empty")])
def test_what_cannot_be_shown_is_an_error(in_digits, tmp_path, dataset, words):
    runner = Runner.from_cfg(looking(tmp_path, [8]))
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.train_loop.dataloader = torch.utils.data.DataLoader(dataset, sampler=None)
    with pytest.raises(ConfigError, match=f'custom_hooks.StatisticsHook: the objective {words}'):
        runner.call_hook('before_train')
