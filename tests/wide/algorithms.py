"""Every algorithm of the MM libraries as a student that is its own teacher: which train, and which are refused and why.

    python -m tests.wide.algorithms [LIBRARY[/FOLDER]...]

Of each folder of stock configs one is tried, with random weights on random images, in a process of its own. What is
found is kept in docs/algorithms.json after each, so that the command goes on where it was stopped, and the page
docs/algorithms.md is written from it. A folder that is named is tried again.
"""
import argparse
import copy
import importlib
import json
import multiprocessing as mp
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Optional

import torch
from mmengine import registry as root
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope

from mmfeatdistill.atomic_files import atomic_write
from mmfeatdistill.distill_config import buildable
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.release.markdown import markdown_table
from mmfeatdistill.step_costs.random_batch import random_batch
from mmfeatdistill.zoo.configs import build_model, load_config
from mmfeatdistill.zoo.packages import TASK_LIBRARIES, config_folder
from tests.helpers.zoo import nodes, small_network

DOCS = Path(__file__).parents[2] / 'docs'
SIDES = dict(mmdet=(128, 320), mmseg=(128, 512), mmpretrain=(224, 384))
"""Of the square images, the first on which the student alone trains."""
SMALL = ('nano', 'tiny', 'atto', 'femto', 'pico', 'r18', 'resnet18', 'b0', '-t_', '-s_', 'small', '0.5', 'x0', 'r50')
AVOIDED = ('x101', 'r101', 'r152', 'large', 'huge', 'giant', '-l_', '-l-', '_l_', '-x_', '_x_', '-xl', 'swin-b',
           'swin-l', 'vit-h', 'b5', 'openimages', 'lvis', 'objects365', 'headless', 'linear')
"""Words of large networks, of large data, and of those of which nothing but a linear layer is trained."""
BENCHMARKS = 'benchmarks'
PIECES = ('mmdet/common', )
"""Folders of which no config has a model."""
SECONDS, GIGABYTES = 420, 12.0
TRAINS, ALONE, REFUSED, FAULT, SKIPPED = 'trains', 'fails alone', 'refused', 'fault', 'skipped'
MEANINGS = {
    TRAINS: 'a step with finite losses of student and objective',
    ALONE: 'the student by itself cannot be built or trained here, on a CPU and random data',
    REFUSED: 'a distiller is not built, for the reason given',
    FAULT: 'the student trains alone, and its distillation fails with an error of another kind',
    SKIPPED: f'more than {GIGABYTES:g} GB or {SECONDS} seconds'}


class Outcome(NamedTuple):
    """What a trial has shown."""

    config: str
    outcome: str
    reason: str


def folders() -> Iterator[str]:
    """Every folder of stock configs, with its library; benchmarks of what a network learned by itself are one more."""
    for library in TASK_LIBRARIES:
        for folder in sorted(Path(config_folder(library)).iterdir()):
            name = f'{library}/{folder.name}'
            if not folder.name.startswith(('_', '.')) and any(folder.rglob('*.py')) and name not in PIECES:
                yield name
                if (folder / BENCHMARKS).is_dir():
                    yield f'{name}/{BENCHMARKS}'


def smallest_config(folder: str) -> str:
    """The config of a folder whose name promises the smallest network."""
    library = folder.partition('/')[0]
    base = Path(config_folder(library))
    inside = base / folder.partition('/')[2]
    paths = [path for path in inside.rglob('*.py') if '_base_' in (text := path.read_text()) or 'model' in text]
    names = [str(path.relative_to(base)) for path in paths if BENCHMARKS not in path.relative_to(inside).parts]

    def size(name: str) -> tuple:
        file = name.rpartition('/')[2]
        place = next((number for number, word in enumerate(SMALL) if word in file), len(SMALL))
        return any(word in file for word in AVOIDED), place, len(file), file
    return f'{library}::{min(names, key=size)}'


def student_of(config: str, side: int) -> Config:
    """A stock config whose network is quick to train on square images, without downloads."""
    cfg = load_config(config)
    small_network(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    cfg.data_preprocessor = None
    preprocessor = cfg.model.get('data_preprocessor')
    if preprocessor and preprocessor.get('size') is not None:
        preprocessor['size'] = (side, side)
    return cfg


def distillation_of(cfg: Config, tap: str, weights: Path) -> Config:
    """The student with itself as a teacher, which has these weights, matched at a tap."""
    model = copy.deepcopy(cfg.model)
    model.setdefault('_scope_', cfg.default_scope)
    distilled = copy.deepcopy(cfg)
    distilled.model = Config(dict(model=dict(
        type='mmfeatdistill.FeatureDistiller', student=copy.deepcopy(model),
        teacher=dict(model=model, checkpoint=str(weights)),
        objectives=dict(mine=dict(
            type='FeatureMatch', taps=[tap], connector=dict(type='ChannelMLP'),
            loss=dict(type='SquaredError', loss_weight=1e-3)))))).model
    return distilled


def taps_of(model: Config, library: str) -> list[str]:
    """Where a network's features are, or those of the first one inside of it: the next where one is refused."""
    parts = {'': model} | {f'{name}.': part for name, part in model.items() if isinstance(part, dict)}
    prefix, part = next(((name, part) for name, part in parts.items() if 'backbone' in part), ('', model))
    names = ['neck'] if library == 'mmdet' and part.get('neck') else []
    return [prefix + name for name in [*names, 'backbone']] if 'backbone' in part else ['image_encoder.0']


def step(model: Any, cfg: Config, side: int) -> dict[str, float]:
    """One training step on random images; the losses."""
    model.init_weights()
    model.train()
    for name in ('iter', 'epoch'):  # as runners tell them
        MessageHub.get_current_instance().update_info(name, 0)
    if hasattr(model, 'set_epoch'):
        model.set_epoch(0)
    wrapper = OptimWrapper(torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6))
    return {name: float(value) for name, value in model.train_step(_batch(cfg, side), wrapper).items()}


def _batch(cfg: Config, side: int) -> dict[str, Any]:
    """Two random images, or as many views of them as the pipeline makes, where no labels are used."""
    batch = random_batch(cfg, 2, side, side)
    if 'SelfSup' in str((cfg.model.get('data_preprocessor') or {}).get('type')):
        images = torch.stack(batch['inputs'])
        views = next((node['num_views'] for node in nodes(cfg.train_dataloader) if node.get('type') == 'MultiView'), 0)
        count = views if isinstance(views, int) else sum(views)
        batch['inputs'] = [images] * count or images
    return batch


def trial(folder: str) -> Outcome:
    """Tries a folder."""
    config = smallest_config(folder)
    alone = None
    for side in SIDES[folder.partition('/')[0]]:
        with TemporaryDirectory() as work:
            outcome = _trial_at(config, side, Path(work))
        if outcome.outcome == TRAINS:
            return outcome
        found = _failure_alone(config, side)
        if found is None:
            return outcome
        alone = alone or found
    return Outcome(config, ALONE, alone or '')


def _trial_at(config: str, side: int, folder: Path) -> Outcome:
    """Builds and trains on images of this side, at the first tap that is not refused."""
    refusal = ''
    try:
        cfg = student_of(config, side)
        init_default_scope(cfg.default_scope)
        weights = _initial_weights(cfg, folder)
        for tap in taps_of(cfg.model, cfg.default_scope):
            try:
                model: Any = root.MODELS.build(buildable(distillation_of(cfg, tap, weights)))
            except ConfigError as error:
                refusal = refusal or str(error)
                continue
            losses = step(model, cfg, side)
            bad = [name for name, value in losses.items() if 'loss' in name and value != value]
            if bad or not any(name.startswith('mine.loss') for name in losses):
                raise ArithmeticError(f'not a number: {bad}' if bad else f'only {sorted(losses)}')
            return Outcome(config, TRAINS, f'`{tap}`: {", ".join(name for name in losses if name.startswith("mine."))}')
    except Exception as error:  # noqa: BLE001 - what it is, is what is asked
        return Outcome(config, FAULT, _said(error))
    return Outcome(config, REFUSED, refusal)


def _initial_weights(cfg: Config, folder: Path) -> Path:
    model = build_model(cfg)
    model.init_weights()
    torch.save(model.state_dict(), folder / 'initial.pth')
    return folder / 'initial.pth'


def _failure_alone(config: str, side: int) -> Optional[str]:
    """What the student by itself fails with, when it is built or when it trains."""
    try:
        cfg = student_of(config, side)
        init_default_scope(cfg.default_scope)
        losses = step(build_model(cfg), cfg, side)
        bad = [name for name, value in losses.items() if value != value]
        return f'not a number: {bad}' if bad else None
    except Exception as error:  # noqa: BLE001
        return _said(error)


def _said(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'


def in_own_process(folder: str) -> Outcome:
    """Tries a folder in a process that is ended if it takes too much."""
    receiving, sending = mp.Pipe(duplex=False)
    process = mp.get_context('fork').Process(target=_send, args=(folder, sending), daemon=True)
    process.start()
    started, reason = time.monotonic(), None
    while process.is_alive() and not receiving.poll(0.2) and reason is None:
        if _gigabytes(process.pid) > GIGABYTES:
            reason = f'more than {GIGABYTES:g} GB of memory'
        elif time.monotonic() - started > SECONDS:
            reason = f'not finished after {SECONDS} seconds'
    if reason is None and receiving.poll():
        found = receiving.recv()
    else:
        found = Outcome(smallest_config(folder), SKIPPED, reason or 'the process died')
    process.kill()
    process.join()
    return found


def _send(folder: str, connection: Connection) -> None:
    torch.set_num_threads(1)
    MMLogger.get_instance('wide', log_level='ERROR')
    os.chdir(Path(config_folder(folder.partition('/')[0])).parent)  # from where configs name others
    try:
        connection.send(trial(folder))
    except Exception as error:  # noqa: BLE001 - a config that cannot be read
        connection.send(Outcome(smallest_config(folder), ALONE, _said(error)))


def _gigabytes(pid: Optional[int]) -> float:
    try:
        lines = Path(f'/proc/{pid}/status').read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith('VmRSS')), 0.0)


def report(found: dict[str, Outcome], total: int) -> str:
    """The page."""
    counts = Counter(outcome.outcome for outcome in found.values())
    rows = [[f'`{folder}`', f'`{o.config.partition("/")[2]}`', o.outcome, o.reason.replace('|', '\\|')]
            for folder, o in sorted(found.items())]
    meanings = '\n'.join(f'- **{name}**, {counts[name]}: {text}.' for name, text in MEANINGS.items() if counts[name])
    return f'''# Algorithms that were tried

Of each folder of stock configs of mmdet, mmseg and mmpretrain, the config whose name promises the smallest network is
a student and its own teacher, with random weights. Its features are matched at the neck of a detector, and at the
backbone of all others, for one training step on two random images, on a CPU. Folders of networks that learn without
labels have a second row, of the classifiers and detectors that start from them. {len(found)} of {total} have been tried
so far, by `python -m tests.wide.algorithms`, which goes on with the others.

{meanings}

{_share(found)}

{markdown_table(['folder', 'config', 'outcome', 'losses of the objective, or why'], rows)}
'''


def _share(found: dict[str, Outcome]) -> str:
    """How many of the algorithms whose students train here are distilled."""
    outcomes: dict[str, set[str]] = {}
    for name, outcome in found.items():
        outcomes.setdefault(name.removesuffix(f'/{BENCHMARKS}'), set()).add(outcome.outcome)
    trained = [seen for seen in outcomes.values() if seen & {TRAINS, REFUSED, FAULT}]
    distilled, pretraining = sum(TRAINS in seen for seen in trained), sum({TRAINS, REFUSED} <= seen for seen in trained)
    return f'''Of {len(trained)} folders whose own student makes a step here, {distilled} are distilled
({distilled / len(trained):.1%}). Of {pretraining} of them it is the network that starts from a pretraining, and the
pretraining itself is refused. Networks that need videos, text, masks of hidden patches or several branches of a batch
make no step on random images, and so are not counted.'''


def _short(reason: str) -> str:
    reason = ' '.join(reason.replace(str(Path(torch.__file__).parents[1]), '...').split())
    return reason if len(reason) <= 300 else f'{reason[:300]} ...'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', metavar='LIBRARY[/FOLDER]', help='default: all that were not tried yet')
    names = parser.parse_args().names
    file, every = DOCS / 'algorithms.json', list(folders())
    found = {name: Outcome(*outcome) for name, outcome in json.loads(file.read_text()).items()} if file.exists() else {}
    found = {name: outcome for name, outcome in found.items() if name in every}
    wanted = [name for name in every if name in names or (
        name not in found and (not names or name.partition('/')[0] in names))]
    for library in TASK_LIBRARIES if wanted else ():
        importlib.import_module(f'{library}.models')  # once, not in each process
    for name in wanted:
        outcome = in_own_process(name)
        found[name] = outcome._replace(reason=_short(outcome.reason))
        print(f'{name}: {found[name].outcome}: {found[name].reason:.150}', file=sys.stderr, flush=True)
        atomic_write(file, json.dumps(dict(sorted(found.items())), indent=1) + '\n')
        atomic_write(DOCS / 'algorithms.md', report(found, len(every)))


if __name__ == '__main__':
    main()
