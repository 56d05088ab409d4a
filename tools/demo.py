"""The demo: trains a teacher, a student alone and the same student distilled, in four tasks, and compares them.

Everything it leaves is below ``work_dirs/demo/seed_<seed>``: the table (``summary.md``, ``summary.json``; of a single
task, in that task's folder), the pictures, and all checkpoints and logs. It can be killed at any time; started again
it goes on.
"""
import argparse
import json
import os
import os.path as osp
import platform
import subprocess
import sys
from dataclasses import asdict
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import mmengine
import torch
from tqdm import tqdm

from mmfeatdistill.engine import Experiment, Result, run_experiment
from mmfeatdistill.files import write_whole
from mmfeatdistill.visualization import image_grid, save_snapshots, training_curves

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
ROLES = ('teacher', 'student', 'distilled')
TITLES = {'teacher': 'teacher', 'student': 'student alone', 'distilled': 'student distilled'}


class Task(NamedTuple):
    """What is trained for a task.

    Attributes:
        title (str): For people.
        configs (dict): Config by role, below ``configs/``.
        metric (str): As mmengine logs it.
        unit (str): For people.
        scale (float): Brings the metric to points out of 100.
        tap (str): The feature that is drawn.
        seconds (dict): Rough time by role, for the estimate of what is left.
    """

    title: str
    configs: dict[str, str]
    metric: str
    unit: str
    scale: float
    tap: str
    seconds: dict[str, float]


def _configs(teacher: str, student: str) -> dict[str, str]:
    return dict(teacher=f'digits/{teacher}_digits.py', student=f'digits/{student}_digits.py',
                distilled=f'channel_mlp/channel-mlp_{student}_digits.py')


TASKS = {
    'classification': Task('Classification, ResNet', _configs('resnet18-w32', 'resnet18-w8'),
                           'accuracy/top1', 'top-1 %', 1, 'backbone',
                           dict(teacher=75, student=20, distilled=30)),
    'faster_rcnn': Task('Detection, Faster R-CNN', _configs('faster-rcnn_r18-w32_fpn', 'faster-rcnn_r18-w8_fpn'),
                        'coco/bbox_mAP', 'box AP', 100, 'neck[0]',
                        dict(teacher=130, student=65, distilled=80)),
    'mask_rcnn': Task('Instances, Mask R-CNN', _configs('mask-rcnn_r18-w32_fpn', 'mask-rcnn_r18-w8_fpn'),
                      'coco/segm_mAP', 'mask AP', 100, 'neck[0]',
                      dict(teacher=170, student=85, distilled=100)),
    'pspnet': Task('Segmentation, PSPNet', _configs('pspnet_r18-w32-d8', 'pspnet_r18-w8-d8'),
                   'mIoU', 'mIoU', 1, 'backbone[-1]',
                   dict(teacher=125, student=50, distilled=75)),
}
DATA = dict(classification='classification', faster_rcnn='detection', mask_rcnn='detection',
            pspnet='segmentation')


def main() -> None:
    """Parses the command line and runs the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--task', choices=['all', *TASKS], default='all', help='default: all four')
    parser.add_argument('--seed', type=int, default=1, help='of all trainings (default: 1)')
    args = parser.parse_args()
    os.chdir(ROOT)
    names = list(TASKS) if args.task == 'all' else [args.task]
    folder = osp.join('work_dirs', 'demo', f'seed_{args.seed}')
    out = folder if args.task == 'all' else osp.join(folder, args.task)
    make_data(names)
    results = train_all(names, folder, args.seed)
    for name in names:
        draw(TASKS[name], osp.join(folder, name))
    training_curves({TASKS[name].title: {TITLES[role]: osp.join(folder, name, role)
                                         for role in ('student', 'distilled')} for name in names},
                    osp.join(out, 'curves.png'))
    table = summary(results, args.seed)
    write_whole(osp.join(out, 'summary.md'), table)
    write_whole(osp.join(out, 'summary.json'), json.dumps(
        {name: {role: asdict(result) for role, result in roles.items()} for name, roles in results.items()},
        indent=2))
    print(f'\n{table}\nTable, pictures, checkpoints and logs: {out}')


def make_data(names: list[str]) -> None:
    """Writes the data sets that are not there yet."""
    for kind in dict.fromkeys(DATA[name] for name in names):
        # In a process of its own: this one forks the trainings, and must not have started any threads.
        subprocess.run([sys.executable, osp.join('tools', 'dataset_converters', 'digit_scenes.py'), 'data/digits',
                        '--task', kind], check=True)


def train_all(names: list[str], folder: str, seed: int) -> dict[str, dict[str, Result]]:
    """Trains or continues everything, under one progress bar in seconds of estimated work."""
    total = sum(sum(TASKS[name].seconds.values()) for name in names)
    bar = tqdm(total=total, unit='s',
               mininterval=1 if sys.stderr.isatty() else 15,
               bar_format='{percentage:3.0f}%|{bar:24}| {elapsed} gone, about {remaining} left | {desc}')
    results: dict[str, dict[str, Result]] = {}
    done = 0.0
    for name in names:
        task, results[name] = TASKS[name], {}
        for role in ROLES:
            options: dict[str, Any] = {'randomness.seed': seed}
            depends_on = [Path('data', 'digits', DATA[name], 'arguments.json').read_text()]
            if role == 'distilled':
                options['model.teacher.checkpoint'] = results[name]['teacher'].checkpoint
                depends_on.append(results[name]['teacher'].fingerprint)
            else:
                # As the distillation configs do: the same random numbers in every iteration.
                options['custom_hooks'] = [dict(type='mmfeatdistill.ExactResumeHook')]

            show = partial(_show, bar, done, task.seconds[role], f'{task.title}: {TITLES[role]}')
            show(0, 'starting')
            work_dir = osp.join(folder, name, role)
            results[name][role] = run_experiment(
                Experiment(osp.join('configs', task.configs[role]), work_dir, options, tuple(depends_on)), show,
                partial(save_snapshots, tap=task.tap, folder=osp.join(work_dir, 'snapshots')))
            done += task.seconds[role]
            score = task.scale * results[name][role].metrics[task.metric]
            bar.write(f'{task.title}: {TITLES[role]} has {score:.2f} {task.unit}')
    bar.n = total
    bar.set_description_str('done')
    bar.close()
    return results


def _show(bar: tqdm, done: float, share: float, label: str, fraction: float, text: str) -> None:
    bar.set_description_str(f'{label}, {text}', refresh=False)
    bar.update(done + fraction * share - bar.n)


def draw(task: Task, folder: str) -> None:
    """Saves the feature maps and the predictions of the three models side by side."""
    for kind in ('feature', 'prediction'):
        rows = [[osp.join(folder, 'teacher', 'snapshots', f'input_{i}.png'),
                 *(osp.join(folder, role, 'snapshots', f'{kind}_{i}.png') for role in ROLES)] for i in range(4)]
        image_grid(rows, ['image', *TITLES.values()], osp.join(folder, f'{kind}s.png'))


def summary(results: dict[str, dict[str, Result]], seed: int) -> str:
    """The table, in Markdown."""
    lines = ['| task | metric | teacher | student alone | student distilled | gain | gap closed | s/iter alone | '
             's/iter distilled | memory alone | memory distilled |', '|' + ' --- |' * 11]
    for name, result in results.items():
        task = TASKS[name]
        teacher, student, distilled = (task.scale * result[role].metrics[task.metric] for role in ROLES)
        closed = f'{100 * (distilled - student) / (teacher - student):.0f} %' if teacher > student else '-'
        lines.append(
            f'| {task.title} | {task.unit} | {teacher:.2f} | {student:.2f} | **{distilled:.2f}** | '
            f'{distilled - student:+.2f} | {closed} | {result["student"].seconds_per_iter:.3f} | '
            f'{result["distilled"].seconds_per_iter:.3f} | {result["student"].peak_memory_mib:.0f} MiB | '
            f'{result["distilled"].peak_memory_mib:.0f} MiB |')
    lines += ['', f'Seed {seed}; {date.today()}; Python {platform.python_version()}, torch {torch.__version__}, '
              f'mmengine {mmengine.__version__}; {torch.get_num_threads()} CPU threads. Memory is the peak of the '
              'whole process.', '']
    return '\n'.join(lines)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nStopped. The same command goes on from here.')
