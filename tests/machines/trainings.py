"""Jobs as users start them, of a few iterations that take their time."""
import json
import re
from pathlib import Path

from mmfeatdistill.checkpoints.safe_load import read_checkpoint_file
from tests.helpers.runs import CONFIGS, DISTILLED
from tests.machines.hosts import ROOT, Host, Job
from tests.test_crashes import check_equal

ITERATIONS = 16
"""Of two epochs, with two images in each of two processes, or with four in one."""
PORT = 29_512
PARTS = ('state_dict', 'distiller', 'optimizer', 'param_schedulers')


def write_config(folder: Path, pause: float, images: int = 2) -> Path:
    """A training of a distilled classifier.

    Args:
        folder: For the file.
        pause: Seconds after each iteration.
        images: Of each process.
    """
    file = folder / f'paced_{pause}_{images}.py'
    file.write_text(f"""
_base_ = [{str(CONFIGS / DISTILLED['classification'])!r}]
custom_imports = dict(imports=['tests.machines.hooks'], allow_failed_imports=False)
custom_hooks = [*_base_.custom_hooks, dict(type='Diary', pause={pause})]
model = dict(teacher=dict(checkpoint=None))
train_cfg = dict(max_epochs=2, val_interval=10)
train_dataloader = dict(batch_size={images}, num_workers=0, persistent_workers=False)
default_hooks = dict(checkpoint=dict(interval=1, save_best=None), logger=dict(interval=1))
randomness = dict(seed=1)
""")
    return file


def write_config_by_iteration(folder: Path, pause: float, length: int) -> Path:
    """The same with a checkpoint after every second iteration, one data worker, and nothing else to do.

    Args:
        folder: For the file.
        pause: Seconds after each iteration.
        length: Iterations.
    """
    file = folder / f'by_iteration_{pause}.py'
    file.write_text(f"""
_base_ = [{str(write_config(folder, pause))!r}]
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters={length}, val_interval={length})
val_cfg, val_dataloader, val_evaluator = None, None, None
train_dataloader = dict(num_workers=1, sampler=dict(type='InfiniteSampler', shuffle=True))
param_scheduler = [dict(type='PolyLR', by_epoch=False, begin=0, end={length})]
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=2, max_keep_ckpts=2), logger=dict(log_metric_by_epoch=False))
log_processor = dict(by_epoch=False, window_size=1)
""")
    return file


def start(host: Host, digits: Path, output: Path, config: Path, work_dir: Path, *options: str, processes: int = 1,
          timeout: float = 60, **environment: str) -> Job:
    """Starts ``tools/dist_train.sh`` on CPUs; further options go before those of the config."""
    command = [ROOT / 'tools' / 'dist_train.sh', config, processes, '--work-dir', work_dir, *options, '--cfg-options',
               'env_cfg.dist_cfg.backend=gloo', f'env_cfg.dist_cfg.timeout={timeout}']
    return host.start(command, digits, output, dict(PORT=str(PORT)) | environment)


def start_on(hosts: list[Host], digits: Path, config: Path, work_dir: Path, *options: str, timeout: float = 60,
             **environment: str) -> list[Job]:
    """A job of one process on each host."""
    work_dir.mkdir(exist_ok=True)
    return [start(host, digits, work_dir / f'{host.name}.log', config, work_dir, *options, timeout=timeout,
                  NNODES=str(len(hosts)), NODE_RANK=str(rank), MASTER_ADDR=hosts[0].address,
                  GLOO_SOCKET_IFNAME='eth0', **environment) for rank, host in enumerate(hosts)]


def check_same(folder: Path, other: Path, name: str) -> None:
    """Fails where two trainings have not saved the same, bit for bit."""
    first, second = (read_checkpoint_file(str(place / name)) for place in (folder, other))
    for part in PARTS:
        check_equal(first[part], second[part], part)


def losses(work_dir: Path) -> dict[int, set[float]]:
    """What was logged of each iteration, also where it was trained several times."""
    found: dict[int, set[float]] = {}
    for file in work_dir.glob('*/vis_data/scalars.json'):
        for line in map(json.loads, file.read_text().splitlines()):
            found.setdefault(line['step'], set()).add(line['loss'])
    return found


def iterations(work_dir: Path, rank: int = 0) -> list[int]:
    """Those that a process has trained, in time."""
    file = work_dir / f'diary_{rank}'
    return [int(number) for number in re.findall(r'iteration (\d+)', file.read_text() if file.exists() else '')]
