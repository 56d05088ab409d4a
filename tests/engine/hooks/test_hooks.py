"""The schedule and the alignment metrics, inside real runners."""
import json

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmfeatdistill.engine.hooks import schedule_factor
from mmfeatdistill.engine.hooks.alignment_hook import cosine_similarity, linear_cka
from mmfeatdistill.errors import ConfigError
from tests.helpers.runs import DISTILLED, small, train


class Record(Hook):
    """Notes the weight of an objective, and how often the teacher has run, in every iteration."""

    priority = 'LOWEST'

    def __init__(self):
        self.weights, self.passes = [], []

    def before_train(self, runner):
        self.calls = 0
        runner.model.teachers[0].model.backbone.conv1.register_forward_hook(self._count)

    def _count(self, *_):
        self.calls += 1

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.weights.append(runner.model.objectives['stage4'].weight)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.passes.append(self.calls)


def recorded(cfg, **options):
    cfg.custom_hooks.append(dict(type='mmfeatdistill.ObjectiveScheduleHook', objective='stage4', **options))
    runner, record = Runner.from_cfg(cfg), Record()
    runner.register_hook(record)
    runner.train()
    return record


def test_schedule_factor_rises_falls_and_stops():
    factors = [schedule_factor(k, warmup=2, decay_begin=4, stop=8, decay='cosine') for k in range(10)]
    assert factors[:5] == [0.5, 1, 1, 1, 1]
    assert factors[5:8] == pytest.approx([0.853553, 0.5, 0.146447], abs=1e-6)
    assert factors[8:] == [0, 0]
    assert [schedule_factor(k, warmup=20) for k in (0, 9, 19, 25)] == [0.05, 0.5, 1, 1]


def test_a_stopped_objective_costs_no_teacher(in_digits, tmp_path):
    cfg = small(DISTILLED['classification'], tmp_path, train_cfg__max_epochs=2)
    record = recorded(cfg, warmup=2, stop=3, by_epoch=False)
    assert record.weights == [0.5, 1, 1, 0, 0, 0, 0, 0]
    assert record.passes == [1, 2, 3, 3, 3, 3, 3, 3]


@pytest.mark.slow
def test_a_schedule_by_epoch_continues_after_resuming(in_digits, tmp_path):
    cfg = small(DISTILLED['classification'], tmp_path, train_cfg__max_epochs=1)
    assert recorded(cfg, decay_begin=0, stop=2).weights == [1] * 4
    cfg = small(DISTILLED['classification'], tmp_path, train_cfg__max_epochs=3, resume=True)
    # What the record held when training stopped is carried over, as whatever a hook holds.
    assert recorded(cfg, decay_begin=0, stop=2).weights == [1] * 4 + [0.5] * 4 + [0] * 4


def test_alignment_is_logged_and_does_not_change_training(in_digits, tmp_path):
    def config(name, hooks):
        cfg = small(DISTILLED['classification'], tmp_path / name, train_cfg__max_epochs=1)
        cfg.custom_hooks += hooks
        return cfg

    plain = train(config('plain', []))
    measured = train(config('measured', [dict(type='mmfeatdistill.AlignmentHook', interval=2)]))
    for first, second in zip(plain.model.state_dict().values(), measured.model.state_dict().values()):
        assert torch.equal(first, second)
    (log,) = tmp_path.glob('measured/*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    line = lines[1]
    assert -1 <= line['stage4.cosine_0'] <= 1 and 0 <= line['stage4.cka_0'] <= 1
    assert line['stage4.ratio_to_task'] > 0
    assert not measured.model.objectives['stage4'].loss._forward_hooks


def test_features_of_other_widths_have_no_cosine(in_digits, tmp_path):
    cfg = small(DISTILLED['classification'], tmp_path, train_cfg__max_epochs=1)
    cfg.model.objectives.stage4.update(connector=None, loss=dict(type='AttentionTransfer', loss_weight=1.0))
    cfg.custom_hooks.append(dict(type='mmfeatdistill.AlignmentHook', interval=2))
    scalars = train(cfg).message_hub.log_scalars
    assert 'train/stage4.cka_0' in scalars and 'train/stage4.cosine_0' not in scalars


def test_the_metrics_have_their_properties():
    features = torch.randn(50, 6, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    assert linear_cka(features, 3 * features @ rotation + 5) == pytest.approx(1)
    assert linear_cka(features, torch.randn(50, 3, dtype=torch.float64)) < 0.5
    assert cosine_similarity(features, 2 * features) == pytest.approx(1)
    assert cosine_similarity(features, -features) == pytest.approx(-1)


def test_a_schedule_by_epoch_needs_epochs(in_digits, tmp_path):
    cfg = small(DISTILLED['classification'], tmp_path)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler')
    cfg.default_hooks.checkpoint = None
    cfg.param_scheduler = []
    with pytest.raises(ConfigError, match='by_epoch: an iteration-based training counts no epochs'):
        recorded(cfg, warmup=2)


def test_data_workers_draw_other_numbers_for_every_batch_and_the_same_again():
    from torch.utils.data import DataLoader

    from mmfeatdistill.engine.hooks.exact_resume_hook import _SeededBatches

    class Draws(torch.utils.data.Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, index):
            return torch.rand(())

    def drawn(first, workers):
        loader = DataLoader(Draws(), batch_size=2, num_workers=workers)
        batches = _SeededBatches(loader.collate_fn, None, (5, 0))
        loader.collate_fn, loader.worker_init_fn = batches, batches.begin
        batches.first = first
        return torch.stack(list(loader))

    entire = drawn(0, workers=2)
    assert len(set(entire.flatten().tolist())) == 12
    assert torch.equal(drawn(0, workers=1), entire), 'whoever loads it, a batch is the same'
    assert torch.equal(drawn(3, workers=2)[:3], entire[3:])


@pytest.mark.slow
@pytest.mark.parametrize('batched', [False, True])
def test_the_seed_of_the_checkpoint_reaches_the_sampler(in_digits, tmp_path, batched):
    """Stock detectors sample batches of one orientation and have no seed."""
    def config(name):
        cfg = small(DISTILLED['faster_rcnn'], tmp_path / name, randomness__seed=None, train_cfg__max_epochs=1)
        if batched:
            cfg.train_dataloader.batch_sampler = dict(type='AspectRatioBatchSampler')
        return cfg

    first = train(config('first'))
    cfg = config('second')
    cfg.merge_from_dict({'resume': True, 'load_from': str(tmp_path / 'first' / 'epoch_1.pth'),
                         'train_cfg.max_epochs': 2})
    second = train(cfg)
    loader = second.train_dataloader
    sampler = loader.batch_sampler.sampler if batched else loader.sampler
    assert sampler.seed == second.seed == first.seed


def test_one_loss_of_an_objective_is_scheduled(in_digits, tmp_path):
    cfg = small(DISTILLED['classification'], tmp_path, train_cfg__max_epochs=1)
    cfg.model.objectives.stage4.taps = ['backbone', 'backbone.layer3']
    cfg.custom_hooks.append(dict(type='mmfeatdistill.ObjectiveScheduleHook', objective='stage4', loss='loss_1',
                                 by_epoch=False, stop=2))
    train(cfg)
    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines = [line for line in lines if 'stage4.loss_1' in line]
    assert len(lines) == 4 and all(line['stage4.loss_0'] > 0 for line in lines)
    # The log smooths over a window: what is off adds nothing any more.
    total = [line['stage4.loss_1'] * (number + 1) for number, line in enumerate(lines)]
    assert total[0] > 0 and total[1] > total[0] and total[1] == pytest.approx(total[3], rel=1e-4)


def test_two_schedules_of_one_loss_are_refused(in_digits, tmp_path):
    cfg = small(DISTILLED['classification'], tmp_path)
    cfg.custom_hooks += [dict(type='mmfeatdistill.ObjectiveScheduleHook', objective='stage4', **options)
                         for options in (dict(warmup=2), dict(stop=3))]
    with pytest.raises(ConfigError, match=r"\('stage4'\): there are 2 that schedule it, of which only the last would"):
        train(cfg)


def test_a_loss_that_is_not_there(in_digits, tmp_path):
    cfg = small(DISTILLED['classification'], tmp_path)
    cfg.custom_hooks.append(
        dict(type='mmfeatdistill.ObjectiveScheduleHook', objective='stage4', loss='los_0', warmup=2))
    with pytest.raises(ConfigError, match=r"no 'los_0'; 'stage4' logs \['loss_0'\]. Did you mean 'loss_0'"):
        train(cfg)
