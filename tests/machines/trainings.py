"""Jobs as users start them, of a few iterations that take their time."""
import re
from pathlib import Path

from tests.helpers.runs import CONFIGS, DISTILLED
from tests.machines.hosts import ROOT, Host, Job

ITERATIONS = 16
"""Of two epochs, with two images in each of two processes, or with four in one."""
PORT = 29_512


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


def iterations(work_dir: Path, rank: int = 0) -> list[int]:
    """Those that a process has trained, in time."""
    file = work_dir / f'diary_{rank}'
    return [int(number) for number in re.findall(r'iteration (\d+)', file.read_text() if file.exists() else '')]
