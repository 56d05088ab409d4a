"""The training options of mmengine with a distillation: each is trained, interrupted and resumed."""
import random
from functools import partial
from typing import Any

import pytest
import torch
from mmengine import registry as root
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import convert_sync_batchnorm
from mmengine.runner import Runner
from mmengine.utils import digit_version
from mmseg.models import SegDataPreProcessor
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmfeatdistill import losses
from mmfeatdistill.losses import partial_l2
from tests.engine.test_runner import same_tensors, straight_and_resumed
from tests.helpers.models import (
    classification_batch,
    classifier,
    detection_batch,
    detector,
    distiller,
    losses_of,
    match,
    segmentation_batch,
    segmenter,
    teacher,
)
from tests.helpers.runs import DISTILLED, small, train

BFLOAT16 = {'optim_wrapper.type': 'mmfeatdistill.CPUAmpOptimWrapper'}
ACCUMULATED = {'optim_wrapper.accumulative_counts': 2}
CLIPPED = {'optim_wrapper.clip_grad': dict(max_norm=0.1)}
STAGES = [f'backbone.layer{stage}:pre' for stage in (1, 2, 3, 4)]


def config(work_dir, task: str, name: str, hooks: tuple[dict, ...] = (), **options: Any) -> Config:
    """A training of eight iterations, without validation."""
    cfg = small(DISTILLED[task], work_dir / name)
    cfg.update(val_cfg=None, val_dataloader=None, val_evaluator=None)
    cfg.train_cfg.pop('val_interval')
    cfg.default_hooks.checkpoint.pop('save_best', None)
    cfg.train_dataloader.num_workers = 0
    cfg.custom_hooks += hooks
    cfg.merge_from_dict(options)
    return cfg


_WITHOUT_OPTIONS: dict[str, dict] = {}


def without_options(work_dir, task: str) -> dict:
    """What the same training learns without options."""
    if task not in _WITHOUT_OPTIONS:
        _WITHOUT_OPTIONS[task] = train(config(work_dir, task, 'without')).model.state_dict()
    return _WITHOUT_OPTIONS[task]


@pytest.mark.parametrize('task, options', [
    pytest.param('classification', BFLOAT16, id='bfloat16'),
    pytest.param('classification', ACCUMULATED, id='accumulation'),
    pytest.param('classification', CLIPPED, id='clipping'),
    pytest.param('faster_rcnn', ACCUMULATED | CLIPPED, id='two in a detector', marks=pytest.mark.slow),
    pytest.param('pspnet', BFLOAT16 | ACCUMULATED | CLIPPED, id='three in a segmenter', marks=pytest.mark.slow)])
def test_an_option_has_an_effect_and_is_resumed_bit_for_bit(in_digits, tmp_path, task, options):
    straight, resumed = straight_and_resumed(partial(config, tmp_path, task, **options), crash_at=6)
    assert resumed.iter == straight.iter == 8
    assert same_tensors(straight.model.state_dict(), resumed.model.state_dict())
    assert not same_tensors(straight.model.state_dict(), without_options(tmp_path, task))
    assert all(tensor.isfinite().all() for tensor in straight.model.state_dict().values())


# --- mixed precision -------------------------------------------------------------------------


def test_in_mixed_precision_both_networks_compute_in_bfloat16_and_all_weights_learn_in_float32(in_digits, tmp_path):
    runner = Runner.from_cfg(config(tmp_path, 'classification', 'run', **BFLOAT16))
    seen = []
    runner.model.objectives['stage4'].loss.register_forward_hook(
        lambda _, args, loss: seen.append((*(feature.dtype for feature in args), loss.dtype)))
    start = {name: parameter.detach().clone() for name, parameter in runner.model.named_parameters()}
    runner.train()
    assert set(seen) == {(torch.bfloat16, torch.bfloat16, torch.float32)}
    assert all(parameter.dtype == torch.float32 and not torch.equal(parameter, start[name])
               for name, parameter in runner.model.named_parameters())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('name', [
    'squared error', 'partial', 'boundary', 'appearance', 'attention', 'factor', 'pearson', 'channel-wise', 'kl'])
def test_losses_of_large_half_precision_maps_are_those_of_the_same_values_in_float32(name, dtype):
    """Sums of squares of a map of 224 x 224 with a few hundred channels are beyond what float16 holds."""
    loss = {
        'squared error': losses.squared_error, 'partial': partial(partial_l2, margin=torch.full((64,), -1.0)),
        'boundary': partial(losses.activation_boundary, margin=1.0),
        'appearance': lambda s, t: losses.appearance([s], [t]), 'attention': losses.attention_transfer,
        'factor': losses.factor_transfer, 'pearson': losses.pearson,
        'channel-wise': partial(losses.channel_wise_divergence, tau=4.0),
        'kl': partial(losses.kl_divergence, tau=4.0)}[name]
    student, target = (50 * torch.randn(2, 64, 56, 56) for _ in range(2))
    student, target = student.to(dtype).requires_grad_(), target.to(dtype)
    wide = student.detach().float().requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        value = loss(student, target)
    expected = loss(wide, target.float())
    assert value.dtype == torch.float32 and value.isfinite()
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    value.backward()
    expected.backward()
    assert student.grad.isfinite().all()
    torch.testing.assert_close(student.grad, wide.grad.to(dtype))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='float16 with a loss scaler needs a GPU')
@pytest.mark.parametrize('task', ['classification', 'faster_rcnn', 'pspnet'])
def test_float16_with_a_loss_scaler_is_resumed(in_digits, tmp_path, task):
    options = {'optim_wrapper.type': 'AmpOptimWrapper', 'optim_wrapper.loss_scale': 'dynamic',
               'optim_wrapper.dtype': 'float16'}
    straight, resumed = straight_and_resumed(partial(config, tmp_path, task, **options), crash_at=6)
    scalers = [runner.optim_wrapper.loss_scaler.state_dict() for runner in (straight, resumed)]
    assert scalers[0] == scalers[1] and scalers[0]['scale'] > 1
    for name, tensor in straight.model.state_dict().items():
        # Some backward kernels on a GPU add in no fixed order.
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor, rtol=1e-2, atol=1e-2)
        assert tensor.isfinite().all()


# --- accumulation and clipping ---------------------------------------------------------------


def test_a_resume_within_an_accumulation_is_not_exact(in_digits, tmp_path):
    """mmengine saves no gradients; it says so."""
    options = {'optim_wrapper.accumulative_counts': 3}  # epochs have four iterations
    straight, resumed = straight_and_resumed(partial(config, tmp_path, 'classification', **options), crash_at=6)
    assert resumed.iter == straight.iter == 8
    assert not same_tensors(straight.model.state_dict(), resumed.model.state_dict())


def test_connectors_gradients_are_accumulated_and_part_of_the_norm_that_is_clipped(in_digits, tmp_path, monkeypatch):
    clipped, lengths, summed = [], [], []

    def add(total, gradient):
        total += gradient

    def clip(parameters, clip=torch.nn.utils.clip_grad_norm_, **options):
        clipped.append({id(parameter) for parameter in parameters})
        lengths.append(torch.stack([parameter.grad.norm() for parameter in parameters]).norm())
        for number, parameter in enumerate(parameters):
            if len(summed) <= number:  # the first update
                summed.append(torch.zeros_like(parameter))
                parameter.register_hook(partial(add, summed[number]))
            else:
                torch.testing.assert_close(parameter.grad, summed[number].clone())
                summed[number].zero_()
        return clip(parameters, **options)

    monkeypatch.setattr(torch.nn.utils, 'clip_grad_norm_', clip)
    model = train(config(tmp_path, 'classification', 'run', **ACCUMULATED | CLIPPED)).model
    assert len(clipped) == 4  # of eight iterations
    assert clipped[0] == {id(parameter) for parameter in model.parameters()}
    assert any(id(parameter) in clipped[0] for parameter in model.distiller.parameters())
    logged = MessageHub.get_current_instance().get_scalar('train/grad_norm').current()
    assert logged == pytest.approx(float(lengths[-1]))


# --- averaging -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize('task, ema_type', [('faster_rcnn', 'ExpMomentumEMA'), ('pspnet', 'ExponentialMovingAverage')])
def test_an_average_of_an_iteration_based_training_is_resumed_bit_for_bit(in_digits, tmp_path, task, ema_type):
    hook = dict(type='EMAHook', ema_type=ema_type, momentum=0.1, begin_iter=2, update_buffers=True)

    def iterations(name: str) -> Config:
        cfg = config(tmp_path, task, name, (hook,))
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=8, val_interval=8)
        cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
        cfg.default_hooks.checkpoint.update(by_epoch=False, interval=3)
        cfg.default_hooks.logger.log_metric_by_epoch = False
        cfg.log_processor = dict(by_epoch=False)
        cfg.param_scheduler = [dict(type='PolyLR', by_epoch=False, begin=0, end=8)]
        return cfg

    straight_and_resumed(iterations, crash_at=5)
    first, second = (torch.load(tmp_path / name / 'iter_8.pth', weights_only=False)
                     for name in ('straight', 'interrupted'))
    for part in ('state_dict', 'ema_state_dict'):
        assert same_tensors(first[part], second[part]) and first['distiller'][part]
        assert same_tensors(first['distiller'][part], second['distiller'][part])
    assert all(not torch.equal(tensor, first['ema_state_dict'][f'module.{name}'])
               for name, tensor in first['state_dict'].items() if name.endswith('running_mean'))


# --- synchronized batch normalization --------------------------------------------------------


def norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


MODELS = dict(
    classification=(classifier, classification_batch, dict(
        ofd=dict(type='OFD', taps=STAGES), fcfd=dict(type='FCFD', taps=STAGES, output='head.fc', paths=6))),
    detection=(detector, detection_batch, dict(
        fpn=match(), norm=match('backbone.layer4.1.bn2'), fcfd=dict(type='FCFDBoxHead', taps=['neck']))),
    segmentation=(segmenter, segmentation_batch, dict(
        logits=dict(type='FeatureMatch', taps=['decode_head.conv_seg'], loss=dict(type='KLDivergence')),
        norm=match('decode_head.convs.0.bn'))))


@pytest.mark.parametrize('task', list(MODELS))
def test_what_mmengine_converts_to_syncbn_is_the_student_with_its_connectors_and_no_tap_is_lost(task):
    """PyTorch synchronizes on GPUs only, so what is compared is the network with its running statistics."""
    make, batch, objectives = MODELS[task]
    model = distiller(make(), teacher(make(16)), objectives)
    model.init_weights()
    model.eval()
    for norm in norms(model):  # such as differ from those of a fresh network
        nn.init.uniform_(norm.running_mean, -0.1, 0.1)
        nn.init.uniform_(norm.weight, 0.5, 1.5)

    def values() -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        MessageHub.get_current_instance().update_info('iter', 0)
        return {name: value for name, value in losses_of(model, batch()).items() if 'loss' in name}

    with torch.no_grad():
        before, names = values(), list(model.state_dict())
        converted = convert_sync_batchnorm(model, 'torch')
        model.eval()  # converted modules start in training mode
        after = values()
    assert converted is model and list(model.state_dict()) == names
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in [*norms(model), *norms(model.student)])
    assert norms(model.student) and len(norms(model)) >= len(norms(model.student))
    assert not any(isinstance(norm, nn.SyncBatchNorm) for norm in norms(model.teachers[0].model))
    assert before.keys() == after.keys() and any('.' in name for name in after)
    torch.testing.assert_close(after, before)


def test_a_syncbn_config_trains_in_one_process_and_is_resumed_bit_for_bit(in_digits, tmp_path):
    """mmengine reverts the student's; the teacher's, in eval mode, synchronizes nothing."""
    sync = dict(type='SyncBN', requires_grad=True)

    def synchronized(name: str) -> Config:
        cfg = config(tmp_path, 'classification', name)
        teacher_config = Config.fromfile(cfg.model.teacher.pop('config'))
        cfg.model.teacher.model = dict(teacher_config.model, _scope_='mmpretrain')
        for network in (cfg.model.student, cfg.model.teacher.model):
            network['backbone']['norm_cfg'] = sync
        return cfg

    straight, resumed = straight_and_resumed(synchronized, crash_at=6)
    assert same_tensors(straight.model.state_dict(), resumed.model.state_dict())
    assert norms(straight.model) and not any(isinstance(n, nn.SyncBatchNorm) for n in norms(straight.model))
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms(straight.model.teachers[0].model))


# --- torch.compile ---------------------------------------------------------------------------


@pytest.fixture
def uncompiled():
    """Nothing compiled before or afterwards."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def compiled_graphs() -> int:
    return torch._dynamo.utils.counters['stats']['unique_graphs']


@root.HOOKS.register_module()
class GraphsHook(Hook):
    """Notes after each iteration how many graphs there are."""

    seen: list[int] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.seen.append(compiled_graphs())


needs_later_torch = pytest.mark.skipif(
    digit_version(torch.__version__) < digit_version('2.2'),
    reason="torch 2.1 cannot compile mmpretrain's data preprocessor, with or without distillation")


@pytest.mark.parametrize('objectives, uncompiled_layers', [
    pytest.param(dict(last=match('backbone')), 0, id='the last stage'),
    # PyTorch does not compile the frame of a loop in which a graph ends: here, that of the stages, with the stem.
    pytest.param(dict(ofd=dict(type='OFD', taps=STAGES), fcfd=dict(type='FCFD', taps=STAGES, output='head.fc')), 1,
                 id='within all stages')])
def test_the_convolutions_of_the_student_run_compiled_with_the_same_losses(uncompiled, objectives, uncompiled_layers):
    ran = []

    def backend(graph, inputs):
        convolutions = [node for node in graph.graph.nodes if node.target == torch.conv2d or (
            node.op == 'call_module' and isinstance(graph.get_submodule(node.target), nn.Conv2d))]

        def run(*args):
            ran.extend(convolutions)
            return graph.forward(*args)
        return run

    model = distiller(classifier(), teacher(classifier(16)), objectives)
    model.init_weights()
    model.eval()  # so that one step does not change the next
    batches = [model.data_preprocessor(classification_batch(*[(64, 64)] * 2), True) for _ in range(3)]

    def values(run) -> list[dict]:
        random.seed(0)
        return [run(**batch, mode='loss') for batch in batches]

    expected = values(model)
    compiled = torch.compile(model.forward, backend=backend)
    found = values(compiled)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    layers = sum(isinstance(module, nn.Conv2d) for module in model.backbone.modules())
    assert len(ran) == len(batches) * (layers - uncompiled_layers)
    graphs = compiled_graphs()
    values(compiled)
    assert graphs == compiled_graphs()
    sum(value for name, value in found[-1].items() if 'loss' in name).backward()
    assert all(parameter.grad is not None for parameter in model.backbone.parameters())


@pytest.mark.slow
@needs_later_torch
@pytest.mark.parametrize('task', ['classification', 'pspnet'])
def test_a_compiled_training_compiles_at_its_start_only_and_is_resumed_bit_for_bit(
        uncompiled, in_digits, tmp_path, monkeypatch, task):
    GraphsHook.seen.clear()
    # torch 2.14 compiles mmseg's, also of a student alone, anew for each batch.
    monkeypatch.setattr(SegDataPreProcessor, 'forward', torch.compiler.disable(SegDataPreProcessor.forward))
    straight, resumed = straight_and_resumed(
        partial(config, tmp_path, task, hooks=(dict(type='GraphsHook'),), compile=dict(backend='eager')), crash_at=6)
    assert GraphsHook.seen[0] > 5 and GraphsHook.seen[2] == GraphsHook.seen[7]
    assert same_tensors(straight.model.state_dict(), resumed.model.state_dict())
    torch.testing.assert_close(dict(straight.model.state_dict()), without_options(tmp_path, task), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@needs_later_torch
def test_the_default_compiler_learns_the_same(uncompiled, in_digits, tmp_path):
    compiled = train(config(tmp_path, 'classification', 'compiled', compile=True)).model
    assert compiled_graphs() > 5
    torch.testing.assert_close(
        dict(compiled.state_dict()), without_options(tmp_path, 'classification'), rtol=1e-2, atol=1e-2)


