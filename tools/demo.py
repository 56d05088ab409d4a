"""The demo: trains a teacher, a student alone and the same student distilled, in four tasks, and compares them.

Classification comes first, and each task is compared as soon as its three trainings are finished. Everything it
leaves is below ``work_dirs/demo/seed_<seed>``: the table (``summary.md``, ``summary.json``) and the pictures, of each
task in its folder and of all four next to them, and all checkpoints and logs. It can be killed at any time; started
again it goes on.
"""
import argparse
import json
import os
import os.path as osp
import subprocess
import sys
from collections.abc import Callable
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

Results = dict[Experiment, Result]

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
    make_data(names)
    comparisons = dict(zip(names, compare([osp.join('configs', 'channel_mlp', TASKS[name].config) for name in names],
                                          [args.seed], osp.dirname(folder))))

    def report(name: str, results: Results) -> str:
        draw(comparisons[name], osp.join(folder, name))
        return save_report({name: comparisons[name]}, results, osp.join(folder, name), args)

    results = train_all(comparisons, args.jobs, report)
    if len(names) > 1:
        print(f'\n{save_report(comparisons, results, folder, args)}')
    print(f'Checkpoints and logs: {folder}')


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


def train_all(comparisons: dict[str, Comparison], jobs: int, report: Callable[[str, Results], str]) -> Results:
    """Trains or continues everything, and draws what the trained networks see.

    Args:
        comparisons (dict[str, Comparison]): By task.
        jobs (int): Trainings side by side.
        report (Callable): Called with a task and the results as soon as its trainings are finished; what it returns
            is printed.

    Returns:
        dict[Experiment, Result]: Of all of them.
    """
    for name, comparison in comparisons.items():
        for experiment in roles(comparison).values():
            experiment.inspect = partial(save_snapshots, tap=TASKS[name].tap, folder=snapshots(experiment))
    experiments = in_order(comparisons)
    bar = ProgressBar(experiments)
    results: Results = {}
    unreported = list(comparisons)

    def finished(experiment: Experiment, result: Result) -> None:
        results[experiment] = result
        bar.finished(experiment, result)
        for name in list(unreported):
            if results.keys() >= set(roles(comparisons[name]).values()):
                unreported.remove(name)
                bar.write(f'\n{report(name, results)}')

    bar.write(f'Training {len(experiments)} networks, {jobs} side by side: a teacher, a student alone and a student '
              f'distilled for each of: {", ".join(comparisons)}. What is finished is not trained again.')
    try:
        return run_experiments(experiments, jobs, on_progress=bar.progressed, on_result=finished)
    finally:
        bar.close()


def in_order(comparisons: dict[str, Comparison]) -> list[Experiment]:
    """The first task before the others, whose trainings meanwhile take the places that are free.

    Of the others, what is waited for comes first, so that none trains alone in the end.
    """
    first, *others = (roles(comparison) for comparison in comparisons.values())
    return [first[role] for role in TITLES] + [task[role] for role in ('teacher', 'distilled', 'student')
                                               for task in others]


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


def save_report(comparisons: dict[str, Comparison], results: Results, folder: str,
                args: argparse.Namespace) -> str:
    """Saves the table and the curves of some tasks, and returns what there is to say about them."""
    os.makedirs(folder, exist_ok=True)
    training_curves({TASKS[name].title: {TITLES['student']: comparison.student.work_dir,
                                         TITLES['distilled']: comparison.distilled.work_dir}
                     for name, comparison in comparisons.items()}, osp.join(folder, 'curves.png'))
    table = summary(comparisons, results, args)
    atomic_write(osp.join(folder, 'summary.md'), table)
    atomic_write(osp.join(folder, 'summary.json'), json.dumps(
        {name: {role: asdict(results[experiment]) for role, experiment in roles(comparison).items()}
         for name, comparison in comparisons.items()}, indent=2))
    pictures = ', '.join(sorted(file for file in os.listdir(folder) if file.endswith('.png')))
    return f'{table}\nTable and pictures ({pictures}): {folder}\n'


def summary(comparisons: dict[str, Comparison], results: Results, args: argparse.Namespace) -> str:
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
