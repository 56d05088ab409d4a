"""Experiments as the jobs of a Slurm cluster."""
import os.path as osp
import shlex
from collections.abc import Callable, Mapping, Sequence

from mmfeatdistill.experiments.experiment import Experiment

_HEAD = """\
#!/usr/bin/env bash
# Submits {count} trainings, one job each, in {folder}.
# Further options of sbatch: SBATCH_ARGS='--partition=gpu --time=8:00:00' bash THIS_FILE
set -euo pipefail
cd {folder}
mkdir -p {logs}
# shellcheck disable=SC2206 # SBATCH_ARGS holds several words on purpose
options=(--parsable --ntasks=1 --gres=gpu:1 --kill-on-invalid-dep=yes --output={logs}/%j.log ${{SBATCH_ARGS:-}})
"""


def submission_script(experiments: Mapping[str, Experiment], command: Callable[[str], Sequence[str]], folder: str,
                      logs: str) -> str:
    """A shell script that submits the experiments that are not finished, each after those that it needs.

    A job whose predecessor fails is canceled. Jobs of the same name run one after the other, so the script does no
    harm while an earlier submission is still at work.

    Args:
        experiments (Mapping[str, Experiment]): By name, each after those that it needs.
        command (Callable): From the name of an experiment to the words of a command that runs it and no other.
        folder (str): Where the commands are run.
        logs (str): Folder for what the jobs print, seen from there.

    Returns:
        str: For bash.
    """
    jobs = {experiment: f'job_{number}' for number, experiment in enumerate(
        (experiment for experiment in experiments.values() if experiment.result() is None), start=1)}
    lines = [_HEAD.format(count=len(jobs), folder=shlex.quote(folder), logs=shlex.quote(logs))]
    for name, experiment in experiments.items():
        if experiment in jobs:
            needed = ''.join(f':${{{jobs[need]}%%;*}}' for need in experiment.needs.values() if need in jobs)
            title = shlex.quote(f'{osp.basename(osp.dirname(logs))}/{name}')
            lines.append(f'{jobs[experiment]}=$(sbatch "${{options[@]}}" --job-name={title} '
                         f'--dependency=singleton{",afterok" + needed if needed else ""} '
                         f'--wrap={shlex.quote(shlex.join(command(name)))})\n')
    return ''.join(lines)
