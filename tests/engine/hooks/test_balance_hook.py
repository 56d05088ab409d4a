"""The balance of losses: the rule, what is measured, and trainings that it holds in a band."""
import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner

from mmfeatdistill.engine.hooks import balance_hook, balanced_weight
from mmfeatdistill.engine.hooks._shares import GradientShare, LossShare, PartShare
from mmfeatdistill.errors import ConfigError
from tests.engine.test_runner import same_tensors, straight_and_resumed
from tests.engine.test_training_options import ACCUMULATED, BFLOAT16, config
from tests.helpers.models import classification_batch, classifier, distiller, match, teacher, transformer
from tests.helpers.runs import CONFIGS
from tests.losses.test_losses_golden import FOLDER

BALANCE = dict(type='mmfeatdistill.BalanceHook', objective='stage4', share=0.3, interval=2)


def rows():
    with np.load(FOLDER / 'rtdetrv4.npz') as arrays:
        return list(zip(*(arrays[f'rule_{name}'].tolist() for name in (
            'rho', 'delta', 'default_weight', 'weight_before', 'share_percent', 'last_phase', 'weight_after'))))


@pytest.mark.parametrize('row', [row for row in rows() if not row[5]])
def test_the_rule_is_the_authors(row):
    rho, delta, default, before, percent, _, after = row
    found = balanced_weight(before, percent / 100, target=rho / 100, tolerance=delta / 100, default=default)
    assert found == pytest.approx(after, rel=2e-6)


# --- what is measured -------------------------------------------------------------------------


class Scaled(OptimWrapper):
    """Multiplies a loss as a wrapper for half precision does."""

    loss_scaler = SimpleNamespace(scale=lambda loss: 64 * loss)

    def backward(self, loss, **kwargs):
        super().backward(self.loss_scaler.scale(loss), **kwargs)


def split(model, data, places):
    """The gradients of the objective m and of all other losses, at some tensors that hooks on modules give."""
    model.zero_grad()
    losses = model(**data, mode='loss')
    own = sum(value for name, value in losses.items() if name.startswith('m.'))
    rest = model.parse_losses({name: value for name, value in losses.items() if not name.startswith('m.')})[0]
    return [sum(float(gradient.abs().sum()) for gradient in torch.autograd.grad(
        loss, places(), retain_graph=True, allow_unused=True) if gradient is not None) for loss in (own, rest)]


@pytest.mark.parametrize('make, taps, modules', [
    # The first feature is computed before the second: both gradients arrive there through the network too.
    (classifier, ['backbone.layer3', 'backbone'], ['backbone.layer3', 'backbone.layer4']),
    # Tokens become maps for the objective alone.
    (transformer, [dict(student='backbone.layers.0', teacher='backbone.layers.0')], ['backbone.layers.0'])])
def test_the_gradient_of_an_objective_is_told_from_that_of_the_others(make, taps, modules):
    objectives = dict(m=dict(match(), taps=taps),
                      other=match('backbone.layers.1' if make is transformer else 'backbone'))
    model = distiller(make(), teacher(make() if make is transformer else make(16)), objectives)
    model.eval()  # no dropout: two passes agree
    data = model.data_preprocessor(classification_batch(), training=True)
    seen = {}
    for name in modules:
        model.get_submodule(name).register_forward_hook(lambda _, args, out, name=name: seen.update({name: out}))
    own, rest = split(model, data, lambda: [seen[name] for name in modules])
    objective = model.objectives['m']
    objective.weight, objective.balance = 0.5, 3.0  # a schedule has no effect on what is measured; the balance has
    wrapper = Scaled(torch.optim.SGD(model.parameters(), lr=0.0), accumulative_counts=2)
    share = GradientShare(objective, wrapper)
    share.begin()
    total = model.parse_losses(model(**data, mode='loss'))[0]
    wrapper.initialize_count_status(model, 0, 4)
    wrapper.update_params(total)
    found = share.end({})
    assert own > 0 and rest > 0
    assert found.tolist() == pytest.approx([32 * 3 * own, 32 * rest], rel=1e-3)
    assert share.end({}) is None, 'only the iteration that was asked for is measured'


def test_the_gradient_on_a_part_is_seen_where_the_optimizer_sees_it():
    model = distiller(classifier(), teacher(classifier(16)), dict(m=match('backbone')))
    data = model.data_preprocessor(classification_batch(), training=True)
    wrapper = Scaled(torch.optim.SGD(model.parameters(), lr=0.0), accumulative_counts=2)
    part = {name: p for name, p in model.named_parameters() if 'layer4.' in name}
    others = {name: p for name, p in model.named_parameters() if name not in part and 'distiller' not in name}
    share = PartShare(part.values(), others.values(), wrapper.optimizer, model.objectives['m'])
    wrapper.initialize_count_status(model, 0, 4)
    share.begin()
    found, noted = [], []
    wrapper.optimizer.register_step_pre_hook(lambda *_: noted.extend(
        float(sum(p.grad.abs().sum() for p in side.values())) for side in (part, others)))
    for weight in (1.0, 1.0, 0.5, 0.5):
        model.objectives['m'].weight = weight
        wrapper.update_params(model.parse_losses(model(**data, mode='loss'))[0])
        found.append(share.end({}))
        if len(found) == 2:
            share.begin()
    assert [value is None for value in found] == [True, False, True, True], 'after an accumulation, without a schedule'
    assert found[1].tolist() == pytest.approx(noted[:2], rel=1e-4)


def test_the_share_of_a_loss_leaves_other_objectives_and_the_schedule_out():
    objective = SimpleNamespace(weight=0.5)
    share = LossShare('fpn', objective, ['fpn', 'other'])
    share.begin()
    outputs = {'loss': torch.tensor(9.0), 'loss_cls': torch.tensor(3.0), 'fpn.loss_0': torch.tensor(0.5),
               'other.loss_0': torch.tensor(5.5)}
    assert share.end(outputs).tolist() == [1, 3] and share.end(outputs) is None
    objective.weight = 0
    share.begin()
    assert share.end(outputs) is None


# --- trainings --------------------------------------------------------------------------------


@pytest.fixture
def in_every_iteration(monkeypatch):
    monkeypatch.setattr(balance_hook, '_EVERY', 1)


def curve(runner, name):
    return [float(value) for value in runner.message_hub.get_scalar(f'train/stage4.{name}').data[0]]


@pytest.mark.parametrize('weight, options', [
    (1e-2, dict(measure='gradient')), (1e-2, dict(measure='loss')),
    (1, dict(watch='backbone', share=0.95, tolerance=0.01))], ids=str)
def test_the_share_comes_into_the_band_and_a_schedule_keeps_its_effect(
        in_digits, tmp_path, in_every_iteration, weight, options):
    schedule = dict(type='mmfeatdistill.ObjectiveScheduleHook', objective='stage4', warmup=2, by_epoch=False)
    runner = Runner.from_cfg(config(tmp_path, 'classification', 'run', (BALANCE | options, schedule)))
    runner.model.objectives['stage4'].loss.loss_weight *= weight
    runner.train()
    shares, balances = curve(runner, 'share'), curve(runner, 'balance')
    target = options.get('share', 0.3)
    assert len(shares) == len(balances) == 4 and abs(shares[-1] - target) < abs(shares[0] - target)
    objective = runner.model.objectives['stage4']
    assert objective.weight == 1 and objective.balance == balances[-1] > 3
    assert shares[0] < target / 2 and shares[-1] == pytest.approx(target, abs=0.2)


@pytest.mark.parametrize('options', [
    pytest.param({}, id='plain', marks=pytest.mark.slow),
    pytest.param(BFLOAT16 | ACCUMULATED, id='bfloat16 and accumulation')])
def test_it_is_resumed_bit_for_bit(in_digits, tmp_path, in_every_iteration, options):
    """The checkpoint after four iterations lies within an interval of three."""
    hooks = (dict(BALANCE, interval=3, tolerance=0.01),)
    straight, resumed = straight_and_resumed(
        partial(config, tmp_path, 'classification', hooks=hooks, **options), crash_at=6)
    assert same_tensors(straight.model.state_dict(), resumed.model.state_dict())
    balances = [runner.model.objectives['stage4'].balance for runner in (straight, resumed)]
    assert balances[0] == balances[1] != 1
    assert curve(straight, 'share') == curve(resumed, 'share')


def test_the_last_phase_has_the_weight_of_the_config(in_digits, tmp_path, in_every_iteration):
    cfg = config(tmp_path, 'classification', 'run', (dict(BALANCE, interval=1, stop=1, by_epoch=True),))
    balances = []
    runner = Runner.from_cfg(cfg)
    runner.model.register_forward_hook(lambda model, *_: balances.append(model.objectives['stage4'].balance))
    runner.train()
    assert balances == [1.0] * 8 and 'train/stage4.share' not in runner.message_hub.log_scalars


def test_the_example_of_the_documentation_trains(in_digits, tmp_path):
    page = (CONFIGS.parent / 'docs' / 'training.md').read_text()
    [example] = re.findall(r'```python\n([^`]*BalanceHook[^`]*)```', page)
    file = tmp_path / 'configs' / 'example' / 'example.py'
    file.parent.mkdir(parents=True)
    for folder in ('channel_mlp', 'digits', '_base_'):
        (tmp_path / 'configs' / folder).symlink_to(CONFIGS / folder)
    file.write_text(example)
    cfg = config(tmp_path, 'classification', 'run')
    cfg.merge_from_dict({'custom_hooks': Config.fromfile(file).custom_hooks, 'train_cfg.max_epochs': 3})
    cfg.custom_hooks[-1].interval = 10
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert len(curve(runner, 'share')) == 1 and 0 < curve(runner, 'share')[0] < 1


@pytest.fixture(scope='module')
def small_model():
    return distiller(classifier(), teacher(classifier(16)), dict(stage4=match('backbone')))


@pytest.mark.parametrize('options, message', [
    (dict(objective='stage'), r"objective: there is no 'stage' in model.objectives, which has .*Did you mean 'stage4'"),
    (dict(watch='backbone.layer5'), r"watch: the student has no module 'backbone.layer5'. Did you mean 'backbone.lay"),
    (dict(watch='backbone.relu'), r"watch: 'backbone.relu' has no parameters that are trained"),
    (dict(optim_wrapper=OptimWrapperDict()), "measure: gradients can be .* got optim_wrapper.type='OptimWrapperDict'"),
    (dict(hooks=2), r"BalanceHook\('stage4'\): there are several of this objective"),
    (dict(by_epoch=True, loop=IterBasedTrainLoop.__new__(IterBasedTrainLoop)), 'by_epoch: an iteration-based train')])
def test_what_cannot_be_held_is_named_before_the_first_iteration(small_model, options, message):
    options = dict(BALANCE, **options)
    optimizer = torch.optim.SGD(small_model.parameters(), lr=0.0)
    runner = SimpleNamespace(model=small_model, optim_wrapper=options.pop('optim_wrapper', OptimWrapper(optimizer)),
                             train_loop=options.pop('loop', None))
    count = options.pop('hooks', 1)
    runner.hooks = [HOOKS.build(options) for _ in range(count)]
    with pytest.raises(ConfigError, match=message):
        runner.hooks[0].before_train(runner)


def test_a_loss_that_a_schedule_switches_off_after_the_measurement_has_begun_is_none(in_digits, tmp_path,
                                                                                     in_every_iteration):
    schedule = dict(type='mmfeatdistill.ObjectiveScheduleHook', objective='stage4', stop=3, by_epoch=False)
    runner = Runner.from_cfg(config(tmp_path, 'classification', 'run', (BALANCE | dict(measure='loss'), schedule)))
    runner.train()
    assert runner.model.objectives['stage4'].weight == 0 and curve(runner, 'share')


@pytest.mark.parametrize('gradients', [(1.0, float('inf')), (float('inf'), 1.0), (float('nan'), 1.0), (0.0, 0.0)])
def test_what_overflowed_is_no_share(gradients):
    hook = balance_hook.BalanceHook(**{name: value for name, value in BALANCE.items() if name != 'type'})
    hook._share, hook._seen = SimpleNamespace(end=lambda outputs: torch.tensor(gradients)), torch.zeros(2)
    hook.by_epoch = True
    hook.after_train_iter(SimpleNamespace(iter=0, epoch=0), 0)
    assert hook._seen.tolist() == [0, 0]
    hook._share = SimpleNamespace(end=lambda outputs: torch.tensor([1.0, 3.0]))
    hook.after_train_iter(SimpleNamespace(iter=0, epoch=0), 0)
    assert hook._seen.tolist() == [0.25, 1]
