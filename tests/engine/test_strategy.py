"""Sharded trainings in two real processes."""
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.runner import FlexibleRunner
from mmengine.utils import digit_version

from mmfeatdistill.registry import STRATEGIES
from tests.engine.test_runner import Crash, same_tensors
from tests.helpers.models import classifier, distiller, match, teacher
from tests.helpers.runs import small

# With offload_to_cpu=True, PyTorch frees on a CPU what it has just gathered there.
WHOLE = dict(state_dict_type='FULL_STATE_DICT',
             state_dict_config=dict(type='FullStateDictConfig', offload_to_cpu=False, rank0_only=False),
             optim_state_dict_config=dict(type='FullOptimStateDictConfig', offload_to_cpu=False, rank0_only=False))
COPIES = dict(type='DDPStrategy', model_wrapper=dict(
    type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False))


def shards(**options: Any) -> dict:
    return dict(type='mmfeatdistill.FSDPStrategy', state_dict_cfg=WHOLE, model_wrapper=dict(
        type='MMFullyShardedDataParallel', device_id=torch.device('cpu'), **options))


def parts_of(parameters: int) -> dict:
    """What has so many parameters is sharded on its own."""
    return dict(type='torch.distributed.fsdp.wrap.size_based_auto_wrap_policy', min_num_params=parameters)


STRATEGIES_OF_RUNS = dict(
    copies=COPIES, shards=shards(), layers=shards(auto_wrap_policy=parts_of(20_000)),
    backbone=shards(auto_wrap_policy=parts_of(150_000)))


def runner(folder: str, name: str, strategy: dict, resume: bool = False) -> FlexibleRunner:
    """FCFD also runs parts of the student after features of the teacher."""
    cfg = small('fcfd/fcfd_resnet18-w8_digits.py', Path(folder, name))
    cfg.update(val_cfg=None, val_dataloader=None, val_evaluator=None, strategy=strategy, launcher='pytorch',
               resume=resume, experiment_name=f'{name} {resume}')
    cfg.train_cfg.pop('val_interval')
    cfg.default_hooks.checkpoint.pop('save_best', None)
    cfg.train_dataloader.num_workers = 0
    return FlexibleRunner.from_cfg(cfg)


def process(rank: int, digits: str, folder: str) -> None:
    os.chdir(digits)
    os.environ.update(LOCAL_RANK='0', RANK=str(rank), WORLD_SIZE='2')
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2)
    for name, strategy in STRATEGIES_OF_RUNS.items():
        runner(folder, name, strategy).train()
    interrupted = runner(folder, 'resumed', STRATEGIES_OF_RUNS['layers'])
    interrupted.register_hook(Crash(at=3))
    with pytest.raises(KeyboardInterrupt):
        interrupted.train()
    runner(folder, 'resumed', STRATEGIES_OF_RUNS['layers'], resume=True).train()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(digit_version(torch.__version__) < digit_version('2.2'), reason='FSDP of torch 2.1 needs a GPU')
def test_shards_learn_what_copies_learn_and_are_resumed_bit_for_bit(digits, tmp_path):
    mp.spawn(process, args=(str(digits), str(tmp_path)), nprocs=2)
    files = {name: torch.load(tmp_path / name / 'epoch_2.pth', weights_only=False)
             for name in (*STRATEGIES_OF_RUNS, 'resumed')}
    for parts in (files, {name: file['distiller'] for name, file in files.items()}):
        states = {name: dict(part['state_dict']) for name, part in parts.items()}
        assert all(key.startswith('distiller.') == (parts is not files) for key in states['shards'])
        for name in ('shards', 'layers', 'backbone'):
            torch.testing.assert_close(states[name], states['copies'], rtol=1e-4, atol=1e-6)
        assert same_tensors(states['resumed'], states['layers'])


def test_teachers_follow_to_the_device_whole(monkeypatch):
    """FSDP moves what it shards itself; on a GPU, nothing else would move a teacher."""
    model = distiller(classifier(), teacher(classifier(16)), dict(last=match('backbone')))
    strategy = STRATEGIES.get('FSDPStrategy')
    monkeypatch.setattr('mmfeatdistill.engine.strategy.get_device', lambda: 'meta')
    monkeypatch.setattr(strategy.__base__, '_wrap_model', lambda self, model: ('wrapped', model))
    assert strategy._wrap_model(object.__new__(strategy), model) == ('wrapped', model)
    assert all(parameter.is_meta for parameter in model.teachers[0].model.parameters())
    assert not any(parameter.is_meta for parameter in model.parameters())
