"""What a distilled step must not cost: waiting for the device, needless copies, memory that is held too long."""
import copy
import gc
import inspect
import random
import sys
import weakref
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from mmengine import registry as root
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import mmfeatdistill
from mmfeatdistill import losses
from mmfeatdistill.engine.hooks import balance_hook
from mmfeatdistill.registry import MODELS
from mmfeatdistill.step_costs.random_batch import random_batch
from mmfeatdistill.taps.tracing import tensors_in
from mmfeatdistill.zoo.configs import build_model, load_config
from tests.helpers.runs import CONFIGS, small, teachers_of

PACKAGE = str(Path(mmfeatdistill.__file__).parent)
DISTILLED = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.glob('*/*_digits.py')
                   if path.parent.name not in ('digits', '_base_'))
# Of each method one task, and of each task one method; the others are slow.
QUICK = ('at/at_pspnet', 'lsh/lsh_faster', 'pkd/pkd_faster')
every_config = pytest.mark.parametrize('path', [
    pytest.param(path, marks=[] if path.startswith(QUICK) or '_resnet18' in path else pytest.mark.slow)
    for path in DISTILLED])

EXCUSED_WAITS = {
    'finite_guard.py': 'looks at a loss on the CPU at once, on an accelerator when it has arrived',
    'roi.py': 'the RoI extractors of mmdet sort proposals by level on the host, for each box head that runs',
}
EXCUSED_COPIES = {
    ('recording.py', '_clone'): 'of a tapped tensor that is overwritten in place; counted apart',
    ('tail.py', '_activated'): 'a mixed path of FCFD starts in front of an activation in place',
    ('extension.py', 'roi_align_forward'): 'operators of mmcv without compiling write into what mmcv gives them',
    ('extension.py', 'roi_align_backward'): 'as above',
    ('lsh.py', '_rows'): 'positions become samples, whose projections are one matrix product',
    ('_parts.py', 'sum_in_parts'): 'a part of the gradient is put in its place',
}


class Operators(TorchDispatchMode):
    """Counts operators that wait for the device, and copies of tensors by shape."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.copies: Counter[tuple] = Counter()
        self.clones_of_taps = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix('aten::')
        if _waits(name, args, kwargs) and not EXCUSED_WAITS.keys() & {file for file, _ in _frames()}:
            self.waits[name] += 1
        output = func(*args, **kwargs)
        if name in ('clone', '_to_copy', 'copy_'):
            innermost = next(_frames(), None)
            self.clones_of_taps += innermost == ('recording.py', '_clone')
            if innermost not in EXCUSED_COPIES:
                self.copies[tuple(output.shape)] += 1
        return output


class HostCopies(TorchFunctionMode):
    """Counts what brings a tensor to the host; on the CPU no operator tells."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, '__name__', '')
        options = [value for value in (*args[1:], *kwargs.values()) if isinstance(value, str)]
        if name in ('cpu', 'numpy', 'tolist', '__array__') or name == 'to' and 'cpu' in options:
            self.waits[name] += 1
        return func(*args, **kwargs)


def _waits(name: str, args: tuple, kwargs: dict) -> bool:
    if name in ('index', 'index_put', 'index_put_', '_index_put_impl_'):
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    if name == 'repeat_interleave':
        return kwargs.get('output_size') is None
    return name in ('_local_scalar_dense', 'nonzero', 'masked_select', 'equal', '_unique2', 'unique_dim',
                    'unique_consecutive')


def _frames():
    """The functions of the package that are running, from the innermost."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            yield Path(frame.f_code.co_filename).name, frame.f_code.co_name
        frame = frame.f_back


def watched(run: Callable[[], Any]) -> tuple[Counter, Operators]:
    """All waits of a run, and its operators."""
    torch.manual_seed(0)
    random.seed(0)
    with HostCopies() as host, Operators() as operators:
        run()
    return host.waits + operators.waits, operators


def allocations(run: Callable[[], Any]) -> tuple[int, int, Any]:
    """Bytes of tensors at the peak of a run, bytes held after it, and what it returned."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        output = run()
    held = peak = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == '[memory]']
    for event in sorted(events, key=lambda event: event.start_ns() if hasattr(event, 'start_ns') else event.start_us()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak, held, output


class Step(NamedTuple):
    """What a distilled step did, beyond a step of the student alone."""

    waits: Counter
    copies: Counter
    clones_of_taps: int
    overwritten: int
    alive_at_student: list[str]
    alive_afterwards: list[str]
    held: int


def distiller_of(path: str) -> tuple[Any, dict]:
    """The distiller of a config with random teachers, and a batch."""
    cfg = Config.fromfile(CONFIGS / path)
    for teacher in teachers_of(cfg):
        teacher.checkpoint = None
    init_default_scope(cfg.default_scope)
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    model = root.MODELS.build(cfg.model)
    model.init_weights()
    batch = random_batch(cfg, 2, 96, 96)
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    wanting = model.images_wanted()
    model.update_statistics(data['inputs'], data['data_samples'], wanting)
    model.finish_statistics(wanting)
    return model.train(), batch


def step(model: Any, batch: dict) -> None:
    """Forward and backward, as a training step does them."""
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    model.parse_losses(model(**data, mode='loss'))[0].backward()
    for parameter in model.parameters():
        parameter.grad = None


@cache
def measured(path: str) -> Step:
    model, batch = distiller_of(path)
    step(model, batch)  # the first step checks more
    distilled, operators = watched(partial(step, model, batch))
    alone, operators_alone = watched(partial(step, model.student, batch))
    # Twice, as the profiler does not see the end of what began before it: detectors keep a little from step to step.
    held = [allocations(partial(step, model, batch))[1] for _ in range(2)][-1]
    sizes: dict[tuple, int] = {}  # by network, tap and number
    handles = [objective.register_forward_pre_hook(lambda _, args: sizes.update(
        {(id(reading.model), tap, number): tensor.numel() for reading in (args[0], *args[1])
         for tap, tensors in reading.features.items() for number, tensor in enumerate(tensors)}))
        for objective in model.objectives.values()]
    step(model, batch)
    for handle in handles:
        handle.remove()
    # Only in front of an activation in place is anything overwritten here.
    overwritten = sum(tap.endswith(':pre') for _, tap, _ in sizes)
    return Step(
        distilled - alone,
        Counter({shape: count for shape, count in (operators.copies - operators_alone.copies).items()
                 if torch.Size(shape).numel() >= min(sizes.values())}),
        operators.clones_of_taps, overwritten, *_alive(model, batch), held)


def _alive(model: Any, batch: dict) -> tuple[list[str], list[str]]:
    """What of the teachers is alive when the student starts and is no tap, and what of a step outlives it."""
    outputs: list[tuple[str, weakref.ref]] = []
    at_student: list[tuple[str, int]] = []
    tapped: set[int] = set()

    def note(path, module, args, output):
        outputs.extend((path, weakref.ref(tensor)) for tensor in tensors_in(output))

    def student_starts(*_):
        handle.remove()  # mixed paths pass it again
        at_student.extend((path, ref().untyped_storage().data_ptr()) for path, ref in outputs
                          if path.startswith('teacher') and ref() is not None)

    def note_taps(module, args):
        tapped.update(tensor.untyped_storage().data_ptr() for reading in args[1]
                      for tensor in tensors_in(reading.features))

    for objective in model.objectives.values():
        objective.register_forward_pre_hook(note_taps)
    for index, teacher in enumerate(model.teachers):
        for path, module in teacher.model.named_modules():
            module.register_forward_hook(partial(note, f'teacher {index}: {path}'))
    handle = model.student.backbone.register_forward_pre_hook(student_starts)
    for path, module in model.student.named_modules():
        module.register_forward_hook(partial(note, f'student: {path}'))
    gc.collect()
    gc.disable()  # what is only in a cycle of references is alive as well, until it is run
    try:
        step(model, batch)
        afterwards = [path for path, ref in outputs if ref() is not None]
    finally:
        gc.enable()
    assert len(outputs) > 50
    return [path for path, storage in at_student if storage not in tapped], afterwards


@every_config
def test_a_step_waits_for_the_device_as_often_as_the_student_alone(path):
    assert not measured(path).waits


@every_config
def test_features_are_copied_only_where_something_overwrites_them(path):
    step = measured(path)
    assert not step.copies
    # Mixed paths of FCFD pass some taps again.
    assert step.clones_of_taps <= step.overwritten * (3 if path.startswith('fcfd') else 1)


@every_config
def test_only_tapped_tensors_of_a_teacher_are_alive_when_the_student_starts(path):
    assert not measured(path).alive_at_student


@every_config
def test_nothing_of_a_step_outlives_it(path):
    step = measured(path)
    assert not step.alive_afterwards
    assert step.held == 0


@pytest.mark.parametrize('wait', [
    lambda x: x.sum().item(), lambda x: bool(x.any()), lambda x: float(x[0]), lambda x: x.nonzero(),
    lambda x: x[x > 0], lambda x: x.masked_select(x > 0), lambda x: x.unique(), lambda x: x.cpu(),
    lambda x: x.to('cpu'), lambda x: x.tolist(), lambda x: x.numpy(), lambda x: x.repeat_interleave(x.long()),
    lambda x: x.index_put_((x > 0,), x.new_zeros(()))])
def test_every_kind_of_wait_is_seen(wait):
    assert watched(lambda: wait(torch.ones(3)))[0].total() >= 1
    assert not watched(lambda: torch.ones(3).mul(2).to(torch.ones(3).device)[torch.arange(2)])[0]


class Kept(NamedTuple):
    """Tensors of the feature's size: kept for the backward pass, and at the peak of the forward pass beyond that."""

    kept: float
    more: float
    why: str


N, C = 8, 64
ALLOWED = Kept(1, 1, 'the rule')
EXCEPTIONS = {
    'ChannelWiseDivergence': Kept(2, 1, 'both distributions: the gradient is their difference'),
    'KLDivergence': Kept(2, 1, 'both distributions: the gradient is their difference'),
    'DIST': Kept(3, 2, "the student's predictions, and the teacher's centered twice: along classes and samples"),
    'RelationalAngle': Kept(2 * N + 1, 2 * N, 'N differences of each of the N embeddings'),
    'AttentionGuided': Kept(2, 2, 'the difference, and the student, whose gradient goes through the norm of the batch'),
    'attention_guided': Kept(2, 2, 'as its module'),
    'normalized_distance': Kept(2, 1, 'as AttentionGuided'),
    'binary_divergence': Kept(1, 3, 'scores of both and their entropy; predictions have a channel for each class'),
    'box_distance': Kept(5, 1, 'the corners of boxes, four numbers each'),
    'distribution_divergence': Kept(2, 3, 'both distributions of the sides of a box, 17 numbers each'),
    'quality_focal': Kept(6, 1, 'scores, their distances and powers of predictions'),
    'channel_wise_divergence': Kept(2, 1, 'as its module'),
    'kl_divergence': Kept(2, 1, 'as its module'),
    'decoupled': Kept(2, 2, 'both distributions; logits of a classifier are small'),
    'dist': Kept(3, 2, 'as its module'),
    'relational_angle': Kept(2 * N + 1, 2 * N, 'as its module'),
}
MAP, ROWS = (N, C, 24, 24), (2048, C)
# What functions need that have no module over them, or no default: shape and options.
FUNCTIONS: dict[str, tuple[tuple, dict]] = {
    'activation_boundary': (MAP, dict(margin=1.0)),
    'appearance': (MAP, {}),
    'attention_error': (MAP, dict(tau=0.5)),
    'binary_divergence': (ROWS, {}),
    'box_distance': ((2048, 4), {}),
    'channel_wise_divergence': (MAP, dict(tau=4.0)),
    'decoupled': (ROWS, dict(labels=torch.arange(2048) % C, alpha=1.0, beta=8.0, tau=4.0)),
    'distribution_divergence': (ROWS, {}),
    'focal': (MAP, dict(masks=[torch.rand(N, 24, 24)] * 2, tau=0.5)),
    'global_relation': (MAP, dict(student_block=nn.Identity(), teacher_block=nn.Identity())),
    'kl_divergence': (MAP, dict(tau=4.0)),
    'lsh': (ROWS, dict(weight=torch.randn(512, C), bias=torch.zeros(512))),
    'masked_generative': (MAP, dict(generator=nn.Identity(), noise=torch.rand(N, 1, 24, 24), mask_ratio=0.5)),
    'partial_l2': (MAP, dict(margin=-torch.rand(C))),
    'quality_focal': (ROWS, {}),
    'target_aware': (MAP, dict(queries=torch.randn(1, N, 4, C), scores=torch.rand(1, N, 4))),
}


def every_loss() -> dict[str, tuple[Callable, tuple]]:
    """All registered losses, and all functions that compare a student with a teacher."""
    found: dict[str, tuple[Callable, tuple]] = {
        name: (MODELS.build(dict(type=f'mmfeatdistill.{name}')), MAP) for name, cls in list(MODELS.module_dict.items())
        if cls.__module__.startswith('mmfeatdistill.losses.') and cls.__name__ == name}
    for name in losses.__all__:
        function = getattr(losses, name)
        if inspect.isfunction(function) and next(iter(inspect.signature(function).parameters)).startswith('student'):
            shape, options = FUNCTIONS.get(name, (MAP, {}))
            found[name] = partial(function, **options), shape
    return found


@pytest.mark.parametrize('name, loss, shape', [(name, *found) for name, found in every_loss().items()],
                         ids=every_loss())
def test_a_loss_needs_one_tensor_of_the_feature_size(monkeypatch, name, loss, shape):
    monkeypatch.setattr(sys.modules['mmfeatdistill.losses.lsh'], '_PROJECTIONS', 2**13)
    student, teacher = torch.randn(shape, requires_grad=True), torch.randn(shape)
    several = name == 'appearance'

    def run():
        return loss([student], [teacher]) if several else loss(student, teacher)
    run().sum().backward()  # some functions give several losses
    peak, held, value = allocations(run)
    assert value.requires_grad
    size = student.numel() * student.element_size()
    allowed = EXCEPTIONS.get(name, ALLOWED)
    masks = 0.3  # of one byte an element, and what is as large as a map without its channels
    assert held / size <= allowed.kept + masks
    assert peak / size <= allowed.kept + allowed.more + masks


def test_exceptions_are_of_losses_that_there_are():
    assert EXCEPTIONS.keys() | FUNCTIONS.keys() <= every_loss().keys()


class Build(NamedTuple):
    """How often a distiller runs, initializes and loads networks while it is built."""

    passes: list[int]
    initialized: int
    drawn: int
    read: int


def built(path: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    cfg = Config.fromfile(CONFIGS / path)
    init_default_scope(cfg.default_scope)
    for teacher in teachers_of(cfg):
        torch.save(build_model(load_config(teacher.config)).state_dict(), checkpoint)
        teacher.checkpoint = str(checkpoint)
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    calls: Counter[Any] = Counter()

    def count(owner, name, key):
        original = getattr(owner, name)

        def counted(*args, **kwargs):
            calls[key(args)] += 1
            return original(*args, **kwargs)
        monkeypatch.setattr(owner, name, counted)
    backbone = root.MODELS.build(dict(cfg.model.student.backbone)).__class__
    count(backbone, 'forward', lambda args: args[0])
    count(backbone, 'init_weights', lambda _: 'init')
    count(torch, 'load', lambda _: 'load')
    count(torch.Tensor, 'uniform_', lambda args: 'drawn' if args[0].numel() > 4000 else 'small')
    model = root.MODELS.build(cfg.model)
    networks = [model.student, *(teacher.model for teacher in model.teachers)]
    return Build([calls[network.backbone] for network in networks], calls['init'], calls['drawn'], calls['load'])


@pytest.mark.parametrize('path, passes', [
    ('channel_mlp/channel-mlp_resnet18-w8_digits.py', 1),
    ('kd/kd_resnet18-w8_digits.py', 1),  # heads do not run in extract_feat
    ('kd/kd_pspnet_r18-w8-d8_digits.py', 1),
    ('feed/feed_resnet18-w8_digits.py', 1),
    ('pkd/pkd_faster-rcnn_r18-w8_fpn_digits.py', 1),
    ('ab/ab_resnet18-w8_digits.py', 2),  # activations are found in a pass of their own
])
def test_building_runs_each_network_a_few_times_and_initializes_none(tmp_path, monkeypatch, path, passes):
    """Twice on small images, of which the second stops at the last tap, and the student once more as in training."""
    build = built(path, tmp_path / 'teacher.pth', monkeypatch)
    assert build.passes == [2 * passes + 1, *[passes + 1] * (len(build.passes) - 1)]
    assert build.initialized == 0
    assert build.read == len(build.passes) - 1


def test_a_teacher_that_is_loaded_draws_no_weights(tmp_path, monkeypatch):
    path = 'channel_mlp/channel-mlp_resnet18-w8_digits.py'
    drawn = built(path, tmp_path / 'teacher.pth', monkeypatch).drawn
    student = root.MODELS.build(Config.fromfile(CONFIGS / path).model.student)
    large = [module for module in student.modules()
             if isinstance(module, (nn.Conv2d, nn.Linear)) and module.weight.numel() > 4000]
    # And the two layers of the connector.
    assert drawn == len(large) + 2


def test_hooks_wait_at_their_interval_only(in_digits, tmp_path, monkeypatch):
    monkeypatch.setattr(balance_hook, '_EVERY', 1)  # what is measured, in each iteration, is looked at no more often
    cfg = small('channel_mlp/channel-mlp_resnet18-w8_digits.py', tmp_path, train_cfg__max_epochs=1,
                train_dataloader__num_batch_per_epoch=5, train_dataloader__batch_size=4)
    cfg.custom_hooks += [
        dict(type='mmfeatdistill.AlignmentHook', interval=2),
        dict(type='mmfeatdistill.BalanceHook', objective='stage4', share=0.5, interval=2),
        dict(type='mmfeatdistill.ObjectiveScheduleHook', objective='stage4', warmup=2)]
    runner = Runner.from_cfg(cfg)
    waits: Counter[int] = Counter()

    def counted(stage, runner, *args, **kwargs):
        with HostCopies() as host, Operators() as operators:
            stage(runner, *args, **kwargs)
        waits[runner.iter] += (host.waits + operators.waits).total()
    ours = [hook for hook in runner.hooks if type(hook).__module__.startswith('mmfeatdistill')]
    for hook in ours:
        hook.before_train_iter = partial(counted, hook.before_train_iter)
        hook.after_train_iter = partial(counted, hook.after_train_iter)
    runner.train()
    assert len(ours) >= 4 and set(waits) == {0, 1, 2, 3, 4}
    assert [iteration for iteration in waits if waits[iteration]] == [1, 3]
