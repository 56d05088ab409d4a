"""What a process sends in a training step, counted."""
import os
from collections import Counter
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from mmfeatdistill.distill_config import student_config
from mmfeatdistill.step_costs.random_batch import random_batch
from mmfeatdistill.zoo.configs import build_model
from tests.distributed.steps import IMAGES, SIDE, build
from tests.helpers.runs import CONFIGS

COLLECTIVES = ('all_reduce', 'broadcast', 'all_gather', 'all_gather_object', 'broadcast_object_list', 'reduce',
               'all_gather_into_tensor', 'gather_object', 'barrier')


def count(rank: int, world: int, path: str, folder: str) -> None:
    """Writes how many bytes one of several processes hands to collectives in a step, and what it could hand over."""
    torch.set_num_threads(1)
    os.chdir(folder)
    dist.init_process_group('gloo', init_method=f'file://{folder}/store_{world}', rank=rank, world_size=world)
    found = {name: _of(name == 'distilled', path) for name in ('alone', 'distilled')}
    if rank == 0:
        torch.save(found, Path(folder) / f'{world}.pt')
    dist.destroy_process_group()


def _of(distilled: bool, path: str) -> dict:
    if distilled:
        model, data = build(path)
    else:
        cfg = student_config(Config.fromfile(CONFIGS / path))
        model = build_model(cfg)
        data = model.data_preprocessor(random_batch(cfg, IMAGES, SIDE, SIDE), True)
    model.train()
    wrapped = MMDistributedDataParallel(model, broadcast_buffers=False)
    sent: Counter = Counter()

    def hook(_: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        sent['gradients'] += bucket.buffer().nbytes
        return allreduce_hook(dist.group.WORLD, bucket)

    wrapped.register_comm_hook(None, hook)
    originals = {name: getattr(dist, name) for name in COLLECTIVES}
    for name, original in originals.items():
        setattr(dist, name, _counted(name, original, sent))
    try:
        for _ in range(2):
            sent.clear()
            losses = wrapped(**data, mode='loss')
            model.parse_losses(losses)[0].backward()
    finally:
        for name, original in originals.items():
            setattr(dist, name, original)
    return dict(sent=dict(sent), parameters=sum(
        parameter.numel() * parameter.element_size() for parameter in model.parameters() if parameter.requires_grad),
        teachers=sum(parameter.numel() * parameter.element_size() for teacher in getattr(model, 'teachers', ())
                     for parameter in teacher.model.parameters()))


def _counted(name, original, sent):
    def collective(*args, **kwargs):
        sent[name] += sum(value.nbytes for value in args if isinstance(value, Tensor)) or 1
        return original(*args, **kwargs)
    return collective
