"""Figures that compare trainings."""
from collections.abc import Mapping, Sequence

import mmcv
from matplotlib.figure import Figure

from mmfeatdistill.engine.work_dir import read_scalars, trained_config
from mmfeatdistill.objectives.logged import task_loss

_SIDE = 2.2
"""Side of a picture in a grid, in inches."""


def image_grid(rows: Sequence[Sequence[str]], titles: Sequence[str], path: str) -> None:
    """Saves image files as a grid with a title over each column.

    Args:
        rows (Sequence[Sequence[str]]): Image files, row by row.
        titles (Sequence[str]): Of the columns.
        path (str): Of the PNG that is written.
    """
    figure = Figure(figsize=(_SIDE * len(titles), _SIDE * len(rows) + 0.3), layout='constrained')
    for axes, file in zip(figure.subplots(len(rows), len(titles), squeeze=False).flat,
                          (file for row in rows for file in row)):
        axes.imshow(mmcv.imread(file, channel_order='rgb'))
        axes.axis('off')
    for axes, title in zip(figure.axes, titles):
        axes.set_title(title, fontsize=10)
    figure.savefig(path, dpi=110)


def training_curves(tasks: Mapping[str, Mapping[str, str]], path: str) -> None:
    """Plots the student's own loss over the iterations, without what distillation adds.

    Args:
        tasks (Mapping[str, Mapping[str, str]]): Work directories by task and label of the curve.
        path (str): Of the PNG that is written.
    """
    figure = Figure(figsize=(4 * len(tasks), 3.2), layout='constrained')
    for axes, (task, curves) in zip(figure.subplots(1, len(tasks), squeeze=False).flat, tasks.items()):
        for label, work_dir in curves.items():
            points = task_losses(work_dir)
            axes.plot(list(points), list(points.values()), label=label)
        axes.set(title=task, xlabel='iteration', ylabel='task loss')
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def task_losses(work_dir: str) -> dict[int, float]:
    """The student's own loss by iteration, from the logs of a training.

    Args:
        work_dir (str): Of one training, perhaps resumed.

    Returns:
        dict[int, float]: Without what the objectives of the config added.
    """
    objectives = trained_config(work_dir).model.get('objectives', {})
    return {int(line['step']): task_loss(line, objectives) for log in read_scalars(work_dir) for line in log
            if 'loss' in line}
