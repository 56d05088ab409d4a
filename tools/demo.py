"""The demo: trains a teacher, a student alone and the same student distilled, in four tasks, and compares them.

Everything it leaves is below ``work_dirs/demo/seed_<seed>``: the table (``summary.md``, ``summary.json``; of a single
task, in that task's folder), the pictures, and all checkpoints and logs. It can be killed at any time; started again
it goes on.
"""
import argparse
import json
import os
import os.path as osp
import subprocess
import sys
from dataclasses import asdict
from datetime import date
from functools import partial
from typing import NamedTuple

from mmfeatdistill.atomic_files import atomic_write
from mmfeatdistill.engine.command_line import at_least
from mmfeatdistill.experiments.comparison import Comparison, compare
from mmfeatdistill.experiments.experiment import Experiment, Result
from mmfeatdistill.experiments.figures import image_grid, training_curves
from mmfeatdistill.experiments.progress import ProgressBar
from mmfeatdistill.experiments.report import scale_of
from mmfeatdistill.experiments.scheduler import default_jobs, run_experiments
from mmfeatdistill.experiments.snapshots import save_snapshots
from mmfeatdistill.zoo.packages import versions

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
TITLES = {'teacher': 'teacher', 'student': 'student alone', 'distilled': 'student distilled'}


class Task(NamedTuple):
    """What is trained for a task.

    Attributes:
        title (str): For people.
        config (str): Distillation config; the teacher and the student alone are found in it.
        data (str): Which data set it is trained on.
        unit (str): Of its metric, for people.
        tap (str): The feature that is drawn.
    """

    title: str
    config: str
    data: str
    unit: str
    tap: str


TASKS = {
    'classification': Task('Classification, ResNet', 'channel-mlp_resnet18-w8_digits.py', 'classification',
                           'top-1 %', 'backbone'),
    'faster_rcnn': Task('Detection, Faster R-CNN', 'channel-mlp_faster-rcnn_r18-w8_fpn_digits.py', 'detection',
                        'box AP', 'neck[0]'),
    'mask_rcnn': Task('Instances, Mask R-CNN', 'channel-mlp_mask-rcnn_r18-w8_fpn_digits.py', 'detection',
                      'mask AP', 'neck[0]'),
    'pspnet': Task('Segmentation, PSPNet', 'channel-mlp_pspnet_r18-w8-d8_digits.py', 'segmentation',
                   'mIoU', 'backbone[-1]'),
}


def main() -> None:
    """Parses the command line and runs the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--task', choices=['all', *TASKS], default='all', help='default: all four')
    parser.add_argument('--seed', type=at_least(0), default=1, help='of all trainings (default: 1)')
    parser.add_argument('--jobs', type=at_least(1), default=default_jobs(),
                        help='trainings side by side (default here: %(default)s)')
    args = parser.parse_args()
    os.chdir(ROOT)
    names = list(TASKS) if args.task == 'all' else [args.task]
    folder = osp.join('work_dirs', 'demo', f'seed_{args.seed}')
    out = folder if args.task == 'all' else osp.join(folder, args.task)
    make_data(names)
    comparisons = dict(zip(names, compare([osp.join('configs', 'channel_mlp', TASKS[name].config) for name in names],
                                          [args.seed], osp.dirname(folder))))
    results = train_all(comparisons, args.jobs)
    for name in names:
        draw(comparisons[name], osp.join(folder, name))
    training_curves({TASKS[name].title: {TITLES['student']: comparison.student.work_dir,
                                         TITLES['distilled']: comparison.distilled.work_dir}
                     for name, comparison in comparisons.items()}, osp.join(out, 'curves.png'))
    table = summary(comparisons, results, args)
    atomic_write(osp.join(out, 'summary.md'), table)
    atomic_write(osp.join(out, 'summary.json'), json.dumps(
        {name: {role: asdict(results[experiment]) for role, experiment in roles(comparison).items()}
         for name, comparison in comparisons.items()}, indent=2))
    print(f'\n{table}\nTable and pictures: {out}; checkpoints and logs: {folder}')


def make_data(names: list[str]) -> None:
    """Writes the data sets that are not there yet."""
    for kind in dict.fromkeys(TASKS[name].data for name in names):
        # In a process of its own: this one forks the trainings, and must not have started any threads.
        subprocess.run([sys.executable, osp.join('tools', 'dataset_converters', 'digit_scenes.py'), 'data/digits',
                        '--task', kind], check=True)


def roles(comparison: Comparison) -> dict[str, Experiment]:
    """What is trained for a task, by what it is called here."""
    (teacher,) = comparison.teachers
    return dict(teacher=teacher, student=comparison.student, distilled=comparison.distilled)


def train_all(comparisons: dict[str, Comparison], jobs: int) -> dict[Experiment, Result]:
    """Trains or continues everything, and draws what the trained networks see."""
    for name, comparison in comparisons.items():
        for experiment in roles(comparison).values():
            experiment.inspect = partial(save_snapshots, tap=TASKS[name].tap, folder=snapshots(experiment))
    # What others wait for comes first, so that none trains alone in the end.
    experiments = [roles(comparison)[role] for role in ('teacher', 'distilled', 'student')
                   for comparison in comparisons.values()]
    bar = ProgressBar(experiments)
    try:
        return run_experiments(experiments, jobs, on_progress=bar.progressed, on_result=bar.finished)
    finally:
        bar.close()


def snapshots(experiment: Experiment) -> str:
    """Folder of an experiment's pictures."""
    return osp.join(experiment.work_dir, 'snapshots')


def draw(comparison: Comparison, folder: str) -> None:
    """Saves the feature maps and the predictions of the three models side by side."""
    os.makedirs(folder, exist_ok=True)
    pictures = {role: snapshots(experiment) for role, experiment in roles(comparison).items()}
    for kind in ('feature', 'prediction'):
        rows = [[osp.join(pictures['teacher'], f'input_{i}.png'),
                 *(osp.join(pictures[role], f'{kind}_{i}.png') for role in TITLES)] for i in range(4)]
        image_grid(rows, ['image', *TITLES.values()], osp.join(folder, f'{kind}s.png'))


def summary(comparisons: dict[str, Comparison], results: dict[Experiment, Result], args: argparse.Namespace) -> str:
    """The table, in Markdown."""
    lines = ['| task | metric | teacher | student alone | student distilled | gain | gap closed | s/iter alone | '
             's/iter distilled | memory alone | memory distilled |', '|' + ' --- |' * 11]
    for name, comparison in comparisons.items():
        result = {role: results[experiment] for role, experiment in roles(comparison).items()}
        teacher, student, distilled = (scale_of(comparison.metric) * result[role].metrics[comparison.metric]
                                       for role in TITLES)
        closed = f'{100 * (distilled - student) / (teacher - student):.0f} %' if teacher > student else '-'
        lines.append(
            f'| {TASKS[name].title} | {TASKS[name].unit} | {teacher:.2f} | {student:.2f} | **{distilled:.2f}** | '
            f'{distilled - student:+.2f} | {closed} | {result["student"].seconds_per_iter:.3f} | '
            f'{result["distilled"].seconds_per_iter:.3f} | {result["student"].peak_memory_mib:.0f} MiB | '
            f'{result["distilled"].peak_memory_mib:.0f} MiB |')
    lines += ['', f'Seed {args.seed}; {date.today()}; {versions()}; one torch thread for each training, {args.jobs} '
              f'side by side on {os.cpu_count()} cores. Memory is the peak of the entire process.', '']
    return '\n'.join(lines)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nStopped. The same command goes on from here.')
