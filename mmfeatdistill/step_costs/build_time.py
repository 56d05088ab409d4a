"""What building a distiller costs, compared with building its networks."""
import copy
import gc
import os.path as osp
import tempfile
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, NamedTuple, Optional

import torch
from mmengine import registry as root
from mmengine.config import Config, ConfigDict
from torch import nn

from mmfeatdistill.checkpoints.load import load_checkpoint
from mmfeatdistill.distill_config import buildable
from mmfeatdistill.zoo.configs import build_model, load_config


class BuildCosts(NamedTuple):
    """Costs of building a distiller and its networks.

    Attributes:
        seconds (dict[str, float]): Median processor time by part: the student alone, the teachers alone with the
            loading of their checkpoints, and the distiller.
        ratio (float): The distiller over the sum of the other two, the median of the rounds.
    """

    seconds: dict[str, float]
    ratio: float


def measure_build(cfg: Config, rounds: int = 10) -> BuildCosts:
    """Measures how long a distillation config takes to become a model.

    All parts are built in turn in every round, in one process, after one round that does not count: it imports and
    downloads. Initializing the student is not part of it, as that is the same with and without distillation. A teacher
    without checkpoint is loaded from a file with its random weights.

    Args:
        cfg (Config): A distillation config.
        rounds (int): Rounds that count. Defaults to 10.

    Returns:
        BuildCosts: Medians of the rounds.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _measure(buildable(cfg), rounds, folder)


def _measure(cfg: ConfigDict, rounds: int, folder: str) -> BuildCosts:
    distiller = root.MODELS.build(copy.deepcopy(cfg))
    preprocessor = distiller.data_preprocessor
    checkpoints = [teacher.load_report and teacher.load_report.source for teacher in distiller.teachers]
    del distiller
    for index, (entry, checkpoint) in enumerate(zip(cfg.teacher, checkpoints)):
        if checkpoint is None:
            checkpoints[index] = entry['checkpoint'] = osp.join(folder, f'{index}.pth')
            torch.save(_teacher(entry, None, preprocessor).state_dict(), checkpoints[index])
    builds: dict[str, Callable[[ConfigDict], Any]] = dict(
        student=lambda model: root.MODELS.build(model.student),
        teacher=lambda model: [_teacher(entry, checkpoint, preprocessor)
                               for entry, checkpoint in zip(model.teacher, checkpoints)],
        distiller=lambda model: root.MODELS.build(model))
    times: dict[str, list[float]] = {part: [] for part in builds}
    for number in range(1 + rounds):
        gc.collect()
        for part, build in builds.items():
            model = copy.deepcopy(cfg)  # some networks write into their config
            # Not the clock: others may use the processor too.
            started = time.process_time()
            built = build(model)
            if number:
                times[part].append(time.process_time() - started)
            del built
    ratio = median(distiller / (student + teacher) for student, teacher, distiller in zip(*times.values()))
    return BuildCosts({part: median(values) for part, values in times.items()}, ratio)


def _teacher(options: Mapping[str, Any], checkpoint: Optional[str], preprocessor: nn.Module) -> nn.Module:
    """A teacher as its own library builds and loads it."""
    loaded = load_config(options['config']) if 'config' in options else Config(dict(model=options['model']))
    model = build_model(loaded, copy.deepcopy(preprocessor))
    if checkpoint is not None:
        load_checkpoint(model, checkpoint, options.get('weights_only', True))
    return model
