"""The processes of a distributed job: how they are joined on CPUs, and what a job that is started again does."""
import logging
import os
import subprocess
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Optional

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.utils import digit_version
from torch import distributed

from mmfeatdistill.engine.work_dir import has_begun

_PORTS = range(20_000, 32_768)
"""From which a job of Slurm takes one: below those that Linux gives to connections."""


def join_on_cpus(cfg: Config) -> None:
    """Joins the processes of a distributed job where mmengine, which gives each a GPU, would fail.

    Args:
        cfg (Config): With ``launcher``; is told how to wrap the model.

    Raises:
        ValueError: Its launcher or its backend is none for CPUs.
    """
    options = cfg.get('env_cfg', {}).get('dist_cfg', {})
    if cfg.launcher not in ('pytorch', 'slurm') or options.get('backend') != 'gloo':
        raise ValueError(
            f'--launcher {cfg.launcher}: each process of a distributed job gets a GPU, and none is visible here. On '
            'CPUs, processes are started by torchrun, as in tools/dist_train.sh, with --launcher pytorch, or by srun, '
            'as in tools/slurm_train.sh, with --launcher slurm; both with --cfg-options '
            'env_cfg.dist_cfg.backend=gloo')
    if cfg.launcher == 'slurm':
        os.environ.update(_ranks_of_slurm())
    distributed.init_process_group('gloo', timeout=timedelta(seconds=options.get('timeout', 1800)))
    cfg.setdefault('model_wrapper_cfg', dict(
        type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False)))


def choose_port_of_slurm(options: Mapping[str, Any]) -> None:
    """Gives each step of a Slurm job a port, as two jobs on a node cannot share the one that mmengine would take.

    Args:
        options (dict): ``env_cfg.dist_cfg``, of which a ``port`` comes first, and then a ``MASTER_PORT`` that is set.

    Examples:
        >>> from unittest.mock import patch
        >>> with patch.dict(os.environ, SLURM_JOB_ID='1041', SLURM_STEP_ID='0', clear=True):
        ...     choose_port_of_slurm({})
        ...     os.environ['MASTER_PORT']
        '28328'
    """
    if options.get('port'):
        os.environ['MASTER_PORT'] = str(options['port'])
    # Eight steps of a job are apart from each other and from those of the next job.
    number = 8 * int(os.environ.get('SLURM_JOB_ID', 0)) + int(os.environ.get('SLURM_STEP_ID', 0))
    os.environ.setdefault('MASTER_PORT', str(_PORTS[number % len(_PORTS)]))


def _ranks_of_slurm() -> dict[str, str]:
    """What torchrun would set, from what srun does."""
    try:
        rank, count, nodes = (os.environ[f'SLURM_{name}'] for name in ('PROCID', 'NTASKS', 'NODELIST'))
    except KeyError as error:
        raise ValueError(f'--launcher slurm: {error.args[0]} is not set, so this is no process that srun has started. '
                         'tools/slurm_train.sh starts them; without Slurm, tools/dist_train.sh does.') from None
    first = os.environ.get('MASTER_ADDR') or subprocess.run(
        ['scontrol', 'show', 'hostnames', nodes], check=True, text=True, stdout=subprocess.PIPE).stdout.split()[0]
    return dict(RANK=rank, WORLD_SIZE=count, LOCAL_RANK=os.environ.get('SLURM_LOCALID', '0'), MASTER_ADDR=first)


def check_restarts(resume: Optional[str], work_dir: str) -> None:
    """Refuses a job that may be, or was, started again by itself, and does not say where it goes on.

    mmengine would begin anew without a word, and write over the checkpoints of what it has done. Warns of a torchrun
    whose processes would find the addresses of those that are gone.

    Args:
        resume (str, optional): Of ``--resume``: None, ``'auto'`` or a file.
        work_dir (str): Of the training.

    Raises:
        ValueError: torchrun may start it again, or Slurm has done so.
    """
    restarts = int(os.environ.get('TORCHELASTIC_MAX_RESTARTS', 0))
    if resume != 'auto':
        instead = ('--resume: it begins where there is no checkpoint in the work directory, and goes on from the last '
                   'one where there is')
        if resume is not None:
            instead += f'. To begin with {resume}, write this path into {Path(work_dir, "last_checkpoint")}'
        if restarts:
            raise ValueError(f'--max-restarts {restarts}: torchrun starts the same command again, which would not go '
                             f'on from the last checkpoint. Add {instead}.')
        if int(os.environ.get('SLURM_RESTART_COUNT', 0)) and has_begun(work_dir):
            raise ValueError(f'Slurm has put this job back in the queue and started it again, and {work_dir} holds '
                             f'checkpoints, which it would write over. Submit it again with {instead}.')
    elif restarts and os.environ.get('TORCHELASTIC_USE_AGENT_STORE') == 'True' and os.environ.get('RANK') == '0' \
            and digit_version(torch.__version__) >= digit_version('2.5.0'):
        print_log(f'--max-restarts {restarts}: torchrun keeps the addresses of processes that are gone, so those that '
                  'it starts again may fail or hang. tools/dist_train.sh has it forget them, as TORCH_DISABLE_SHARE_'
                  'RDZV_TCP_STORE=1 torchrun --rdzv-backend=c10d does, without --master_port.', level=logging.WARNING)
