"""Experiments that write a result at once, to test what is around trainings."""
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

import torch
from mmengine.config import Config

from mmfeatdistill.experiments.experiment import Experiment, Result


def nothing(experiment) -> None:
    """What most of them do."""


@dataclass(eq=False)
class Quick(Experiment):
    """Tells a log next to its work directory when it starts and ends."""

    action: Callable[['Quick'], Optional[float]] = nothing

    def _train(self, checkpoints, send):
        self.tell('start', checkpoints, torch.get_num_threads())
        send((1, 2, 'training'))
        score = self.action(self)
        finish(self, 0.0 if score is None else score)
        self.tell('end')

    def tell(self, *event) -> None:
        line = json.dumps([os.path.basename(self.work_dir), *event]) + '\n'
        with open(Path(self.work_dir).parent / 'log', 'a') as file:
            file.write(line)


def quick(work_dir, action=nothing, needs=(), **content) -> Quick:
    """An experiment; each of what it needs is a teacher."""
    keys = {f'model.teacher.{i}.checkpoint': need for i, need in enumerate(needs)}
    model = dict(name=os.path.basename(work_dir), teacher=[dict(checkpoint=None) for _ in keys], **content)
    return Quick(Config(dict(model=model)), str(work_dir), needs=keys, action=action)


def finish(experiment: Experiment, score: float, metric: str = 'mIoU') -> None:
    """Leaves the result of a finished training."""
    checkpoint = Path(experiment.work_dir) / 'epoch_1.pth'
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text('weights')
    result = Result({metric: score}, str(checkpoint), 0.25, 2.0, 100.0, experiment.fingerprint)
    (checkpoint.parent / 'result.json').write_text(json.dumps(asdict(result)))


def events(folder: Path) -> list[list]:
    """What the experiments in a folder have told, in time."""
    log = folder / 'log'
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Fails if something does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
