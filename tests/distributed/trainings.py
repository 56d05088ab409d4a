"""Real trainings of objectives that look at training images first, in one process of two or alone."""
import os
from pathlib import Path
from unittest.mock import patch

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmfeatdistill.engine.hooks import balance_hook
from tests.helpers.runs import DISTILLED, small

OBJECTIVES = dict(
    median=dict(type='LSH', taps=['head.fc:in'], connector=dict(type='Conv1x1')),
    some=dict(type='LSH', taps=['head.fc:in'], connector=dict(type='Conv1x1'), max_samples=5),
    mean=dict(type='LSH', taps=['head.fc:in'], connector=dict(type='Conv1x1'), bias='mean'),
    margins=dict(type='OFD', taps=['backbone.layer4.0.conv1'], margin_images=7),  # no normalization tells these
    standardized=dict(type='FeatureMatch', taps=['backbone'], connector=dict(type='Conv1x1'), standardize='channel',
                      standardize_images=9, loss=dict(type='SquaredError', loss_weight=0.01)))
BALANCED = dict(margins='gradient', mean='loss')
"""Objectives whose share is held, and by what it is measured."""


@HOOKS.register_module()
class RandomStates(Hook):
    """Notes the random state of each iteration."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.states: list[torch.Tensor] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.states.append(torch.get_rng_state())


def config(work_dir: Path, teacher: Path, epochs: int) -> Config:
    cfg = small(DISTILLED['classification'], work_dir, train_cfg__max_epochs=epochs, train_dataloader__batch_size=8,
                train_dataloader__num_workers=0)
    cfg.randomness = dict(seed=1, diff_rank_seed=True)
    balance = dict(type='BalanceHook', share=0.5, tolerance=0.01, interval=2)
    cfg.custom_hooks += [dict(balance, objective=name, measure=measure) for name, measure in BALANCED.items()]
    cfg.model.objectives = OBJECTIVES
    cfg.model.teacher.checkpoint = str(teacher)
    cfg.update({f'val_{part}': None for part in ('cfg', 'dataloader', 'evaluator')})
    cfg.default_hooks.checkpoint.save_best = None
    # Without random crops, so that it does not matter which process augments an image.
    cfg.train_dataloader.dataset.pipeline = cfg.test_pipeline
    if get_world_size() > 1:
        # mmengine's own wrapping gives each process a GPU.
        cfg.launcher = 'pytorch'
        cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    return cfg


@patch.object(balance_hook, '_EVERY', 1)
def resumed_once(digits: Path, teacher: Path, work_dir: Path, rank: int = 0) -> dict:
    """Trains an epoch, and another after resuming, in which no images are shown first.

    Args:
        digits: The data, the current directory from now on.
        teacher: Weights.
        work_dir: Of the trainings.
        rank: Unused; mmengine asks torch.

    Returns:
        The buffers of the objectives as ``built``, once ``shown`` the images, and when ``resumed``; the ``weights`` of
        student and connectors at the end; the random ``states`` of the iterations; and the ``balances`` of two
        objectives at the end of the first and the second training.
    """
    os.chdir(digits)
    first = Runner.from_cfg(config(work_dir, teacher, epochs=1))
    built = added_buffers(first)
    first.train()
    cfg = config(work_dir, teacher, epochs=2)
    cfg.resume = True
    cfg.custom_hooks = [*(hook for hook in cfg.custom_hooks if 'Calibration' not in hook.type),
                        dict(type='RandomStates')]
    second = Runner.from_cfg(cfg)
    second.train()
    [states] = [hook.states for hook in second.hooks if isinstance(hook, RandomStates)]
    balances = [[getattr(runner.model, 'module', runner.model).objectives[name].balance for name in BALANCED]
                for runner in (first, second)]
    return dict(built=built, shown=added_buffers(first), resumed=added_buffers(second), states=states,
                weights={name: value.detach() for name, value in second.model.named_parameters()}, balances=balances)


def added_buffers(runner: Runner) -> dict[str, torch.Tensor]:
    model = getattr(runner.model, 'module', runner.model)
    # Running statistics of connectors are each process's own, as those of the student are.
    return {name: value.clone() for name, value in model.named_buffers()
            if name.startswith('distiller.') and '.connectors.' not in name}
