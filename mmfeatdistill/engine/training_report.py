"""What a person looks at after a training: how the losses and the score went, and what to do with the checkpoint."""
import io
import os.path as osp
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from glob import glob
from itertools import cycle
from typing import Optional

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mmengine.config import Config

from mmfeatdistill.atomic_files import atomic_write
from mmfeatdistill.engine.stock_student import STUDENT_FILE
from mmfeatdistill.engine.work_dir import best_metric, pick_checkpoint, read_scalars, trained_config
from mmfeatdistill.objectives.logged import added_loss, task_loss

_COLORS = [f'C{index}' for index in range(10)]
"""matplotlib's own cycle."""

Curve = dict[int, float]
"""Values by iteration."""


@dataclass
class Training:
    """What the logs of a training say.

    Attributes:
        work_dir (str): Where they are.
        scores (dict[str, dict[int, float]]): Metrics by name, at the iteration before the evaluation.
        ratios (dict[str, dict[int, float]]): By objective, its losses over the student's own.
        alignments (dict[str, dict[int, float]]): What :class:`AlignmentHook` has measured, but for these ratios.
        seconds (list[float]): Of each logged iteration.
        waiting (list[float]): How much of it went by until the data were there.
        memory (float): Peak in MiB, on a GPU; 0 elsewhere.
    """

    work_dir: str
    scores: dict[str, Curve] = field(default_factory=dict)
    ratios: dict[str, Curve] = field(default_factory=dict)
    alignments: dict[str, Curve] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    memory: float = 0.0


def read_training(work_dir: str, cfg: Optional[Config] = None) -> Training:
    """Reads the logs of a training.

    Args:
        work_dir (str): Of one training, distilled or not, perhaps resumed: of what was logged twice, the later counts.
        cfg (Config, optional): Its config. Defaults to None: as it lies next to the logs.

    Returns:
        Training: What they say.

    Raises:
        FileNotFoundError: There are no logs.
    """
    cfg = cfg or trained_config(work_dir)
    objectives = list(cfg.model.get('objectives') or {})
    found = Training(work_dir)
    for log in read_scalars(work_dir):
        iteration = 0
        for line in log:
            if 'loss' in line:
                iteration = int(line.get('iter', line['step']))
                _add_training_line(found, iteration, line, objectives)
            else:
                for name, value in line.items():
                    if name not in ('step', 'time', 'data_time'):
                        found.scores.setdefault(name, {})[iteration or int(line['step'])] = value
    return found


def _add_training_line(found: Training, iteration: int, line: Mapping[str, float], objectives: list[str]) -> None:
    own = task_loss(line, objectives)
    for name in objectives:
        if own:
            found.ratios.setdefault(name, {})[iteration] = added_loss(line, name) / own
    for name, value in line.items():
        objective, _, measured = name.rpartition('.')
        if objective in objectives and measured.startswith(('cosine_', 'cka_')):
            found.alignments.setdefault(name, {})[iteration] = value
    if 'time' in line:
        found.seconds.append(line['time'])
        found.waiting.append(line.get('data_time', 0.0))
    found.memory = max(found.memory, line.get('memory', 0.0))


def headline(cfg: Config, training: Training) -> Optional[str]:
    """The metric by which a training is judged.

    Args:
        cfg (Config): Of the training.
        training (Training): With its scores.

    Returns:
        str: The one by which the best checkpoint is kept, else the first that was logged; None if none was.
    """
    best = best_metric(cfg)
    return best if best in training.scores else next(iter(training.scores), None)


def write_report(work_dir: str, alone: Optional[Training] = None, cfg: Optional[Config] = None) -> list[str]:
    """Draws the picture of a distillation, and says in some lines what it brought and what to do next.

    Args:
        work_dir (str): Of the distillation.
        alone (Training, optional): Of the student alone on the same recipe. Defaults to None.
        cfg (Config, optional): Of the distillation. Defaults to None: as it lies next to the logs.

    Returns:
        list[str]: Gain, cost, losses, checkpoint, how to test it, and where the picture is; to be read by people.

    Raises:
        FileNotFoundError: There are no logs.
    """
    cfg = cfg or trained_config(work_dir)
    training = read_training(work_dir, cfg)
    metric = headline(cfg, training)
    picture = osp.join(work_dir, 'distillation.png')
    atomic_write(picture, _figure(osp.basename(osp.abspath(work_dir)), metric, training, alone))
    return [f'gain:       {_gain(metric, training, alone)}',
            f'cost:       {_cost(training, alone)}',
            f'losses:     {"; ".join(_losses(training)) or "nothing was logged of the objectives"}',
            *_checkpoint(work_dir),
            f'picture:    {picture}']


def _checkpoint(work_dir: str) -> Iterator[str]:
    try:
        checkpoint = pick_checkpoint(work_dir)
    except (FileNotFoundError, ValueError) as error:
        yield f'checkpoint: {error}'
        return
    yield f"checkpoint: {checkpoint}, the student's own"
    for config in glob(osp.join(work_dir, f'*{STUDENT_FILE}')):
        yield f'test:       python tools/test.py {config} {checkpoint}'


def _gain(metric: Optional[str], training: Training, alone: Optional[Training]) -> str:
    if metric is None:
        return 'nothing was evaluated'
    score = _last(training.scores[metric])
    if alone is None:
        return f'{metric} is {score:.4g}; --student-alone WORK_DIR compares it with the student alone'
    if metric not in alone.scores:
        return f'{metric} is {score:.4g}; {alone.work_dir} has no evaluation of it'
    own = _last(alone.scores[metric])
    return f'{metric} is {score:.4g}, and {own:.4g} of the student alone ({alone.work_dir}): {score - own:+.4g}'


def _cost(training: Training, alone: Optional[Training]) -> str:
    if not training.seconds:
        return 'no iteration was logged'
    seconds = statistics.median(training.seconds)
    text = f'{seconds:.3g} s for an iteration, {statistics.median(training.waiting):.2g} s of them waiting for data'
    if training.memory:
        text += f', {training.memory / 1024:.3g} GiB of GPU memory'
    if alone is not None and alone.seconds:
        own = statistics.median(alone.seconds)
        text += f'; {seconds / own:.3g} times the {own:.3g} s that the student alone took, if the machine was as busy'
    return text


def _losses(training: Training) -> Iterator[str]:
    for name, curve in training.ratios.items():
        yield f"{name} went from {_first(curve):.2g} to {_last(curve):.2g} times the student's own loss"
    cosines = {name: curve for name, curve in training.alignments.items() if '.cosine_' in name}
    if cosines:
        first, last = (statistics.mean(end(curve) for curve in cosines.values()) for end in (_first, _last))
        yield f'the mean cosine of the features from {first:.2g} to {last:.2g}'


def _figure(title: str, metric: Optional[str], training: Training, alone: Optional[Training]) -> bytes:
    """The score, the losses, and the alignment where it was measured, as a PNG."""
    panels = [name for name, shown in dict(score=metric, ratio=training.ratios, alignment=training.alignments).items()
              if shown]
    figure = Figure(figsize=(4.4 * max(len(panels), 1), 3.3), layout='constrained')
    for panel, axes in zip(panels, figure.subplots(1, max(len(panels), 1), squeeze=False).flat):
        if panel == 'score':
            own = {} if alone is None else {'student alone': alone.scores.get(str(metric), {})}
            _draw(axes, str(metric), {'distilled': training.scores[str(metric)], **own}, 'o-', ['#d1495b', '#7f7f7f'])
        elif panel == 'ratio':
            _draw(axes, "loss over the student's own", training.ratios)
            axes.set_yscale('log' if all(value > 0 for curve in training.ratios.values()
                                         for value in curve.values()) else 'linear')
        else:
            _draw(axes, 'alignment of the features', training.alignments)
    figure.suptitle(title, fontsize=10)
    file = io.BytesIO()
    figure.savefig(file, format='png', dpi=120)
    return file.getvalue()


def _draw(axes: Axes, title: str, curves: Mapping[str, Curve], style: str = '-',
          colors: Sequence[str] = _COLORS) -> None:
    for (name, curve), color in zip(curves.items(), cycle(colors)):
        iterations = sorted(curve)
        axes.plot(iterations, [curve[iteration] for iteration in iterations], style, label=name, color=color)
    axes.set(xlabel='iteration')
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(title, fontsize=10)
    if axes.lines:
        axes.legend(fontsize=7)


def _first(curve: Curve) -> float:
    return curve[min(curve)]


def _last(curve: Curve) -> float:
    return curve[max(curve)]
