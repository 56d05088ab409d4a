"""Releases: a checkpoint that training left, made small, verified, and named after its content."""
import hashlib
import io
import math
import os.path as osp
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Optional

import torch
from mmengine.config import Config

from mmfeatdistill.atomic_files import atomic_write
from mmfeatdistill.checkpoints.load import read_checkpoint
from mmfeatdistill.distillers.building import ADDED
from mmfeatdistill.engine.stock_student import is_ours, stock_student
from mmfeatdistill.engine.work_dir import pick_checkpoint, read_scalar_file
from mmfeatdistill.registry import SCOPE
from mmfeatdistill.release.metafiles import data_name
from mmfeatdistill.version import __version__
from mmfeatdistill.zoo.configs import build_model, build_runner

TOLERANCE = 0.005
"""By how much of itself a metric may differ from the logged one."""
_LAST_DIGIT = 0.001
"""Of COCO's metrics: a smaller difference is none."""

HEADLINES = {
    'coco/bbox_mAP': ('Object Detection', 'box AP', 100),
    'pascal_voc/mAP': ('Object Detection', 'mAP', 100),
    'coco/segm_mAP': ('Instance Segmentation', 'mask AP', 100),
    'mIoU': ('Semantic Segmentation', 'mIoU', 1),
    'accuracy/top1': ('Image Classification', 'Top 1 Accuracy', 1),
    'accuracy/top5': ('Image Classification', 'Top 5 Accuracy', 1),
    'multi-label/mAP': ('Multi-Label Classification', 'mAP', 1),
}
"""By mmengine's name of a metric: task and name in a metafile, and what brings it to points out of 100."""


@dataclass(frozen=True)
class Release:
    """What was released.

    Attributes:
        name (str): Of the config.
        checkpoint (Path): The student's weights; config and logs lie next to it under the same name.
        config (Config): Of the student alone.
        averaged (bool): Whether the weights are the exponential moving averages.
        metrics (dict[str, float]): As validated; empty if that was skipped.
    """

    name: str
    checkpoint: Path
    config: Config
    averaged: bool
    metrics: dict[str, float]

    def own_parts(self) -> list[str]:
        """What of the student is made of this project, which then has to be installed to run it.

        Returns:
            list[str]: Keys and types; empty for a student of the MM libraries.
        """
        imports = (self.config.get('custom_imports') or {}).get('imports', [])
        return [*_ours(self.config), *(f'custom_imports ({name})' for name in imports if is_ours(name))]

    def results(self) -> list[dict[str, Any]]:
        """The headline metrics as ``Results`` of a metafile.

        Returns:
            list[dict]: One entry for each task.
        """
        tasks: dict[str, dict[str, float]] = {}
        for name, (task, shown, scale) in HEADLINES.items():
            if name in self.metrics:
                tasks.setdefault(task, {})[shown] = round(self.metrics[name] * scale, 2)
        dataset = data_name(self.config.val_dataloader) if tasks else ''
        return [{'Task': task, 'Dataset': dataset, 'Metrics': metrics} for task, metrics in tasks.items()]


def publish(work_dir: str, out: str, checkpoint: Optional[str] = None, name: Optional[str] = None,
            validate: bool = True, tolerance: float = TOLERANCE) -> Release:
    """Writes ``<config>_<date>-<sha8>.pth`` with the student alone, its config and its log.

    Nothing is written unless the weights load in the student's own config with nothing missing and nothing
    unexpected and, with ``validate``, reproduce what the training logged of them.

    Args:
        work_dir (str): Where an MM training, distilled or not, left checkpoints and logs.
        out (str): Folder for the release.
        checkpoint (str, optional): Defaults to None: the best one, else the last.
        name (str, optional): Defaults to None: the name of the config that was trained.
        validate (bool): Whether to run the student's validation. Defaults to True.
        tolerance (float): See :func:`disagreements`. Defaults to 0.005.

    Returns:
        Release: Where it is, and what it has shown.

    Raises:
        FileNotFoundError: There is no checkpoint, no log, or there are no data to validate on.
        ValueError: It is no checkpoint of an mmengine training, does not fit the student, or does not reproduce
            what was logged.
    """
    source = checkpoint or pick_checkpoint(work_dir)
    saved = read_checkpoint(source)
    meta = saved['meta']
    trained = Config.fromstring(meta['cfg'], '.py')
    cfg = stock_student(trained)
    state_dict = {key: value for key, value in saved['state_dict'].items() if not key.startswith(f'{ADDED}.')}
    check_fit(cfg, state_dict, source)
    content = _serialized(state_dict, meta, cfg)
    experiment, started = _experiment(meta)
    logs = osp.join(work_dir, started)
    metrics = {}
    if validate:
        logged = logged_metrics(logs, trained, meta)
        metrics = _validate(cfg, content)
        if found := disagreements(logged, metrics, tolerance):
            raise ValueError(f'{source} does not reproduce what the training logged of it, within {tolerance:.2%}: '
                             f'{"; ".join(found)}. Nothing was released.')
    date = meta.get('time', time.strftime('%Y%m%d', time.localtime(osp.getmtime(source))))[:8]
    name = name or experiment
    stem = Path(out) / f'{name}_{date}-{hashlib.sha256(content).hexdigest()[:8]}'
    atomic_write(f'{stem}.py', cfg.pretty_text)
    for log, ending in ((f'{started}.log', 'log'), ('vis_data/scalars.json', 'json')):
        if osp.isfile(osp.join(logs, log)):
            shutil.copyfile(osp.join(logs, log), f'{stem}.{ending}')
    # Last: where the weights are, the rest is.
    atomic_write(f'{stem}.pth', content)
    return Release(name, Path(f'{stem}.pth'), cfg, 'ema_state_dict' in saved, metrics)


def check_fit(cfg: Config, state_dict: Mapping[str, Any], source: str) -> None:
    """Loads weights in the model that a student's config builds.

    Args:
        cfg (Config): Of the student alone.
        state_dict (dict): Its weights.
        source (str): Where they are from, for the message.

    Raises:
        ValueError: Something is missing, unexpected or of another shape.
    """
    try:
        build_model(cfg).load_state_dict(state_dict, strict=True)
    except RuntimeError as error:
        raise ValueError(f'{source} does not fit the student of its own config: {error}') from error


def logged_metrics(logs: str, trained: Config, meta: Mapping[str, Any]) -> dict[str, float]:
    """What a training logged of a checkpoint when it was validated.

    Args:
        logs (str): Folder of the run that saved it.
        trained (Config): As it was trained; tells whether metrics are logged by epoch or iteration.
        meta (dict): Of the checkpoint.

    Returns:
        dict[str, float]: Metrics under mmengine's names.

    Raises:
        FileNotFoundError: There is no log, or no validation at that point in it.
    """
    file = osp.join(logs, 'vis_data', 'scalars.json')
    by_epoch = (trained.get('default_hooks') or {}).get('logger', {}).get('log_metric_by_epoch', True)
    unit = 'epoch' if by_epoch else 'iter'
    hint = 'Choose a validated checkpoint by --checkpoint, or release without a check by --skip-validation.'
    if not osp.isfile(file):
        raise FileNotFoundError(f'there is no log {file} to compare with. {hint}')
    found = [line for line in read_scalar_file(file)
             if line.get('step') == meta.get(unit) and not line.keys() & {'iter', 'loss'}]
    if not found:
        raise FileNotFoundError(f'{file} has no validation of {unit} {meta.get(unit)}. {hint}')
    return {name: value for name, value in found[-1].items() if name not in ('step', 'time', 'data_time')}


def disagreements(logged: Mapping[str, float], measured: Mapping[str, float], tolerance: float) -> list[str]:
    """The metrics that were not reproduced.

    Args:
        logged (dict[str, float]): By the training.
        measured (dict[str, float]): Of the release.
        tolerance (float): Allowed difference as a part of the larger value; 0.001 in the metric's own units is
            always allowed, which is the last digit of COCO's.

    Returns:
        list[str]: To be read by people; empty if all agree.

    Examples:
        >>> disagreements({'mIoU': 26.2}, {'mIoU': 26.3}, tolerance=0.005)
        []
        >>> disagreements({'mIoU': 26.2}, {'mIoU': 25.2}, tolerance=0.005)
        ['mIoU is 25.2, logged 26.2']
    """
    def agree(first: float, second: float) -> bool:
        both_empty = math.isnan(first) and math.isnan(second)  # a class without any pixel
        return both_empty or math.isclose(first, second, rel_tol=tolerance, abs_tol=_LAST_DIGIT * (1 + 1e-6))

    return [f'{name} is {measured.get(name, math.nan):g}, logged {value:g}' for name, value in logged.items()
            if not agree(value, measured.get(name, math.nan)) or name not in measured]


def _validate(cfg: Config, content: bytes) -> dict[str, float]:
    """Runs the student's own validation on weights as they would be released."""
    if not cfg.get('val_dataloader'):
        raise ValueError('the config has no validation to run; release without a check by --skip-validation.')
    with tempfile.TemporaryDirectory() as folder:
        file = osp.join(folder, 'weights.pth')
        atomic_write(file, content)
        run = Config.fromstring(cfg.pretty_text, '.py')
        # No backend of the training's visualizer is to hear of this, and a hook that keeps the best needs a training.
        run.merge_from_dict({'work_dir': folder, 'load_from': file, 'visualizer': None,
                             'default_hooks.checkpoint': None})
        run.val_dataloader.persistent_workers = False
        try:
            runner = build_runner(run)
            return {name: float(value) for name, value in runner.val().items() if isinstance(value, Real)}
        except (OSError, AssertionError) as error:
            raise FileNotFoundError(
                f'the release cannot be validated: {type(error).__name__}: {error}. Run it where the data are, '
                'or release without a check by --skip-validation.') from error


def _serialized(state_dict: Mapping[str, Any], meta: Mapping[str, Any], cfg: Config) -> bytes:
    told = {key: meta[key] for key in ('dataset_meta', 'epoch', 'iter', 'seed', 'time', 'mmengine_version')
            if key in meta}
    released_with = {SCOPE: __version__, 'torch': str(torch.__version__)}
    # In memory, as torch would write the file's own name into it.
    buffer = io.BytesIO()
    torch.save({'meta': {**told, 'cfg': cfg.pretty_text, 'released_with': released_with},
                'state_dict': dict(state_dict)}, buffer)
    return buffer.getvalue()


def _experiment(meta: Mapping[str, Any]) -> tuple[str, str]:
    """Config name and start of the run that saved a checkpoint, which is the name of its folder."""
    found = re.fullmatch(r'(?:(.+)_)?(\d{8}_\d{6})', str(meta.get('experiment_name')))
    return (found[1] or found[2], found[2]) if found else ('student', '')


def _ours(value: Any, key: str = '') -> Iterator[str]:
    """Keys of the types of this project that are left in a config."""
    if isinstance(value, Mapping):
        if is_ours(value.get('type')):
            yield f'{key} ({value["type"]})'
        for name, part in value.items():
            yield from _ours(part, f'{key}.{name}'.strip('.'))
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            yield from _ours(part, f'{key}.{index}')
