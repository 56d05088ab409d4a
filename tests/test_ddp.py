"""Two real processes compute what one would."""
from typing import Optional

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import init_default_scope
from torch import nn

from mmfeatdistill.distillers import FeatureDistiller
from tests.runs import CONFIGS, DISTILLED

STAGES = [f'backbone.layer{stage}:pre' for stage in (1, 2, 3, 4)]
METHODS = dict(
    fcfd=dict(type='FCFD', taps=STAGES, output='head.fc'),
    ofd=dict(type='OFD', taps=STAGES),
    lsh=dict(type='LSH', taps=['head.fc:in'], connector=dict(type='Conv1x1'), bias='zero'),
    dkd=dict(type='Decoupled', taps=['head.fc']))


def distiller(seed: int, objectives: Optional[dict] = None) -> FeatureDistiller:
    torch.manual_seed(seed)
    init_default_scope('mmpretrain')
    cfg = Config.fromfile(CONFIGS / DISTILLED['classification'])
    cfg.model.teacher.checkpoint = None
    neck = dict(type='FeatureMatch', taps=['neck'], loss=dict(type='SquaredError'), connector=dict(type='Conv1x1'))
    options = {name: value for name, value in cfg.model.items() if name != 'type'}
    model = FeatureDistiller(**options | dict(objectives=objectives or dict(cfg.model.objectives, pooled=neck)),
                             data_preprocessor=cfg.data_preprocessor)
    model.init_weights()
    model.train()
    for module in model.modules():  # statistics of half a batch are others than those of the whole
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def batch() -> dict:
    from mmpretrain.structures import DataSample
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(10, (8,), generator=generator)
    return dict(inputs=torch.randn(8, 3, 64, 64, generator=generator),
                data_samples=[DataSample().set_gt_label(int(label)) for label in labels])


def gradients(model: nn.Module, data: dict, distiller: FeatureDistiller) -> dict:
    model.zero_grad()
    loss, _ = distiller.parse_losses(model(**data, mode='loss'))
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in distiller.named_parameters()
            if parameter.grad is not None}


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2)
    # The second process starts from other weights; only the teachers must agree by themselves.
    model = distiller(seed=rank)
    model.teachers[0].model.load_state_dict(torch.load(f'{folder}/teacher.pth'))
    wrapped = MMDistributedDataParallel(model)
    half = {name: value[rank * 4:rank * 4 + 4] for name, value in batch().items()}
    result = dict(both=gradients(wrapped, half, model), buckets=len(list(wrapped.parameters())))
    model.objectives['pooled'].weight = 0.0
    result['stopped'] = gradients(wrapped, half, model)
    result['again'] = gradients(wrapped, half, model)
    model = distiller(rank, METHODS)
    model.teachers[0].model.load_state_dict(torch.load(f'{folder}/teacher.pth'))
    wrapped = MMDistributedDataParallel(model)
    for iteration in range(3):  # other mixed paths in each, the same in both processes
        MessageHub.get_current_instance().update_info('iter', iteration)
        result[f'methods {iteration}'] = gradients(wrapped, half, model)
    torch.save(result, f'{folder}/rank{rank}.pth')
    dist.destroy_process_group()


def close(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(
        torch.allclose(first[name], second[name], rtol=1e-4, atol=1e-5 * float(second[name].abs().max() + 1e-8))
        for name in first)


def test_gradients_of_two_processes_are_those_of_the_joined_batch(tmp_path):
    alone = distiller(seed=0)
    torch.save(alone.teachers[0].model.state_dict(), tmp_path / 'teacher.pth')
    mp.spawn(process, args=(str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f'rank{rank}.pth') for rank in range(2)]
    for step in ('both', 'stopped', 'again', 'methods 0', 'methods 1', 'methods 2'):
        assert close(ranks[0][step], ranks[1][step])
    assert all(name in ranks[0]['methods 2'] for name, _ in distiller(0, METHODS).named_parameters())
    whole = gradients(alone, batch(), alone)
    assert any(name.startswith('distiller.') for name in whole) and ranks[0]['buckets'] == len(whole)
    assert close(ranks[0]['both'], whole)
    # An objective that is off takes part with zeros: DDP waits for every gradient.
    alone.objectives['pooled'].weight = 0.0
    stopped = gradients(alone, batch(), alone)
    off = {name: value for name, value in ranks[0]['stopped'].items() if name not in stopped}
    assert off and all(name.startswith('distiller.pooled.') and not value.any() for name, value in off.items())
    assert close({name: ranks[0]['stopped'][name] for name in stopped}, stopped)
