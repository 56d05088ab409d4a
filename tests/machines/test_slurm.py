"""A real Slurm: processes by srun, jobs that need others, and a job that goes back into the queue."""
import math
import re
import shlex
import sys
from datetime import datetime
from pathlib import Path

import pytest

from tests.helpers.runs import CONFIGS, DISTILLED
from tests.machines import cluster
from tests.machines.cluster import Cluster
from tests.machines.hosts import ROOT, Hosts, Job
from tests.machines.restarts import LENGTH, PATIENCE, check_restarts
from tests.machines.trainings import iterations, write_config_by_iteration

HAS_ENDED = ('COMPLETED', 'FAILED', 'TIMEOUT', 'CANCELLED')
TINY = ['train_cfg.max_epochs=1', 'train_dataloader.num_batch_per_epoch=2', 'train_dataloader.batch_size=8',
        'train_dataloader.num_workers=0', 'val_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
        'val_dataloader.persistent_workers=False', 'default_hooks.logger.interval=1']

if cluster.missing():
    pytest.skip(cluster.missing(), allow_module_level=True)


@pytest.fixture
def slurm(tmp_path):
    """A node with two processors and two GPUs, which are none, but are counted."""
    (tmp_path / 'slurm').mkdir()
    with Hosts(1) as machines:
        yield Cluster(machines, tmp_path / 'slurm')


def start(slurm: Cluster, digits: Path, folder: Path, pause: float, *options: str, **environment: str) -> Job:
    """Starts ``tools/slurm_train.sh`` with two tasks on CPUs."""
    folder.mkdir()
    command = [ROOT / 'tools' / 'slurm_train.sh', 'main', 'a_job', write_config_by_iteration(folder, pause, LENGTH),
               folder, *options, '--cfg-options', 'env_cfg.dist_cfg.backend=gloo']
    return slurm.start(command, digits, folder / 'output.log', **dict(
        GPUS='2', GPUS_PER_NODE='2', CPUS_PER_TASK='1') | environment)


def test_two_tasks_train_what_torchrun_does(slurm, digits, tmp_path, straight):
    job = start(slurm, digits, tmp_path / 'run', 0, SRUN_ARGS='--gres=none --time=60')
    assert job.wait(PATIENCE) == 0, job.output[-3000:]
    assert slurm.job('1')['JobState'] == 'COMPLETED' and slurm.job('1')['NumTasks'] == '2'
    check_restarts(tmp_path / 'run', straight, 0)


def test_a_job_that_reaches_its_time_limit_goes_on_from_the_queue(slurm, digits, tmp_path, straight):
    folder = tmp_path / 'run'
    job = start(slurm, digits, folder, 1, '--resume', REQUEUE='30', SRUN_ARGS='--time=60')
    assert job.wait(60) == 0, job.output
    [number] = re.findall(r'^Submitted batch job (\d+)$', job.output, re.MULTILINE)
    slurm.wait_until(lambda: 3 in iterations(folder))
    # The limit is made so short only now, as nobody knows how long this machine takes to begin.
    ran = datetime.now() - datetime.fromisoformat(slurm.job(number)['StartTime'])
    slurm.run('scontrol', 'update', f'JobId={number}', f'TimeLimit={math.ceil(ran.total_seconds() / 60 + 0.5)}')
    slurm.wait_until(lambda: slurm.job(number)['Restarts'] == '1' or slurm.job(number)['JobState'] in HAS_ENDED)
    log = (folder / f'slurm_{number}.log').read_text()
    assert 'DUE TO JOB REQUEUE' in log, log[-3000:]
    slurm.run('scontrol', 'update', f'JobId={number}', 'TimeLimit=60')
    slurm.wait_until(lambda: slurm.job(number)['JobState'] in HAS_ENDED)
    assert slurm.job(number)['JobState'] == 'COMPLETED', (folder / f'slurm_{number}.log').read_text()[-3000:]
    check_restarts(folder, straight, 1)


def test_a_job_that_would_begin_anew_is_not_submitted(slurm, digits, tmp_path):
    job = start(slurm, digits, tmp_path / 'run', 0, REQUEUE='30')
    assert job.wait(60) == 2 and 'so add --resume: it begins where there is no checkpoint' in job.output
    assert 'No jobs in the system' in slurm.run('scontrol', 'show', 'jobs')


def test_jobs_of_a_comparison_wait_for_what_they_need(slurm, digits, tmp_path):
    """The teacher's first job is canceled, and so is then the one that needs it; the next submission has both."""
    def compare(option: str) -> None:
        words = [sys.executable, ROOT / 'tools' / 'compare_methods.py', CONFIGS / DISTILLED['classification'], option,
                 '--seeds', '1', '--out', tmp_path / 'out', '--time', '0', '--cfg-options', *TINY]
        command = f'{shlex.join(map(str, words))} > {tmp_path / "jobs.sh"}'
        job = slurm.start(['bash', '-c', command], digits, tmp_path / 'output.log')
        assert job.wait(PATIENCE) == 0, job.output[-3000:]

    def submit() -> dict[str, str]:
        compare('--slurm')
        job = slurm.start(['bash', tmp_path / 'jobs.sh'], digits, tmp_path / 'output.log', SBATCH_ARGS='--hold')
        assert job.wait(60) == 0, job.output
        jobs = slurm.run('scontrol', 'show', 'jobs', '--oneliner')
        return {name: number for number, name, state in re.findall(
            r'JobId=(\d+) JobName=out/seed_1/(\S+) .* JobState=(\w+)', jobs) if state == 'PENDING'}

    def ended(number: str) -> dict[str, str]:
        slurm.wait_until(lambda: slurm.job(number)['JobState'] in HAS_ENDED)
        return slurm.job(number)

    teacher, alone, distilled = 'resnet18-w32_digits', 'resnet18-w8_digits', 'channel-mlp_resnet18-w8_digits'
    first = submit()
    assert set(first) == {teacher, alone, distilled}
    slurm.run('scancel', first[teacher])
    slurm.run('scontrol', 'release', first[alone], first[distilled])
    assert [ended(first[name])['JobState'] for name in (teacher, alone, distilled)] == [
        'CANCELLED', 'COMPLETED', 'CANCELLED']
    second = submit()
    assert set(second) == {teacher, distilled}
    slurm.run('scontrol', 'release', *second.values())
    jobs = {name: ended(number) for name, number in second.items()}
    logs = [file.read_text()[-1000:] for file in (tmp_path / 'out' / 'slurm').glob('*.log')]
    assert all(job['JobState'] == 'COMPLETED' for job in jobs.values()), logs
    assert jobs[distilled]['StartTime'] >= jobs[teacher]['EndTime'], 'there were two processors, and it waited'
    compare('--slurm')
    assert '$(sbatch' not in (tmp_path / 'jobs.sh').read_text()
    compare('--report-only')
    assert re.search(r'^\| channel-mlp \| [\d.]+ \|', (tmp_path / 'out' / 'benchmark.md').read_text(), re.MULTILINE)
