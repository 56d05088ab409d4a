"""What the training and testing commands of all tasks have in common."""
import argparse
import math
import os
import os.path as osp
from collections.abc import Callable, Mapping
from typing import Any, Optional

from mmengine.config import Config, DictAction
from mmengine.device import get_device, is_cuda_available

from mmfeatdistill.distill_config import check_distillation, is_distillation
from mmfeatdistill.engine import needed_hooks
from mmfeatdistill.engine.processes import check_restarts, choose_port_of_slurm, join_on_cpus
from mmfeatdistill.engine.work_dir import has_begun
from mmfeatdistill.errors import config_key
from mmfeatdistill.zoo.configs import load_config

_REPORT = 'mmfeatdistill.ReportHook'


def run_arguments(description: str) -> argparse.ArgumentParser:
    """A parser with the options that MM users know from every ``train.py`` and ``test.py``.

    Args:
        description (str): Of the command.

    Returns:
        argparse.ArgumentParser: To be extended by the command.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help="a config file, or a stock config such as 'mmdet::...'")
    add_run_options(parser)
    return parser


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Adds what every command that runs a config takes.

    Args:
        parser (ArgumentParser): Of a command.
    """
    parser.add_argument('--work-dir', help='where logs and checkpoints go; default: work_dirs/<config name>')
    add_cfg_options(parser, 'override settings of the config, such as train_cfg.max_epochs=3')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='how the processes of a distributed job were started')
    # torch.distributed.launch passes this; torchrun sets the environment variable instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Adds what every command that trains takes, for :func:`configure_training`.

    Args:
        parser (ArgumentParser): Of a command.
    """
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='resume from a checkpoint, or from the latest one in the work directory')
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate to the actual batch size')
    parser.add_argument('--student-alone', metavar='WORK_DIR',
                        help='of a training of the student alone, with which the report at the end compares')


def add_cfg_options(parser: argparse.ArgumentParser, text: str) -> None:
    """Adds ``--cfg-options``.

    Args:
        parser (ArgumentParser): Of a command.
        text (str): The help.
    """
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, type=_key_value, metavar='KEY=VALUE', help=text)


def _key_value(text: str) -> str:
    if not text.partition('=')[0] or '=' not in text:
        raise argparse.ArgumentTypeError(f'expected KEY=VALUE, such as train_cfg.max_epochs=3, got {text!r}')
    return text


def at_least(minimum: int, kind: Callable[[str], float] = int) -> Callable[[str], Any]:
    """A ``type`` of argparse: numbers from a least one on.

    Args:
        minimum (int): The least.
        kind (type): ``int`` or ``float``. Defaults to ``int``.

    Returns:
        Callable[[str], int | float]: Raises an ArgumentTypeError if the word is no such number.

    Examples:
        >>> at_least(1)('8')
        8
        >>> at_least(1)('0')
        Traceback (most recent call last):
        argparse.ArgumentTypeError: expected a integer of at least 1, got '0'
    """
    def read(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not number >= minimum:
            name = 'integer' if kind is int else 'number'
            raise argparse.ArgumentTypeError(f'expected a {name} of at least {minimum}, got {text!r}')
        return number
    return read


def load_with_options(config: str, options: Optional[Mapping[str, Any]]) -> Config:
    """Loads a config and overrides some of its settings.

    Args:
        config (str): By any name (see :func:`mmfeatdistill.zoo.configs.load_config`).
        options (dict, optional): What ``--cfg-options`` gave, by dotted keys.

    Returns:
        Config: The config with these settings.

    Raises:
        ConfigError: There is no such config, or it cannot be read.
    """
    with config_key('config'):
        cfg = load_config(config)
    if options:
        cfg.merge_from_dict(options)
    return cfg


def load_distillation(config: str, options: Optional[Mapping[str, Any]]) -> Config:
    """Loads a distillation config as :func:`load_with_options` does, and refuses any other.

    Args:
        config (str): By any name.
        options (dict, optional): What ``--cfg-options`` gave.

    Returns:
        Config: The config with these settings.

    Raises:
        ConfigError: It cannot be read, or is no distillation config.
    """
    cfg = load_with_options(config, options)
    check_distillation(cfg)
    return cfg


def configure(args: argparse.Namespace) -> Config:
    """Loads the config of a command and applies the common options.

    Args:
        args (argparse.Namespace): As :func:`run_arguments` parses it.

    Returns:
        Config: With ``launcher`` and ``work_dir`` set.

    Raises:
        ValueError: The processes of a distributed job cannot be joined on this machine.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_with_options(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if cfg.launcher == 'slurm':
        choose_port_of_slurm(cfg.get('env_cfg', {}).get('dist_cfg', {}))
    if cfg.launcher != 'none' and get_device() == 'cpu':
        join_on_cpus(cfg)
    name = osp.splitext(osp.basename(args.config))[0]
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or osp.join('work_dirs', name)
    return cfg


def configure_training(args: argparse.Namespace) -> Config:
    """Applies the options of training on top of :func:`configure`.

    Args:
        args (argparse.Namespace): Also with ``amp``, ``auto_scale_lr``, ``resume``, ``student_alone`` for a
            :class:`mmfeatdistill.engine.hooks.ReportHook`, and ``check_teacher``, None or the number of images for a
            :class:`mmfeatdistill.engine.hooks.TeacherCheckHook`.

    Returns:
        Config: Ready for a runner.

    Raises:
        ValueError: An option that does not apply to this config or machine, or a job that would be started again
            without ``--resume``.
    """
    needed_hooks.install()
    cfg = configure(args)
    if args.amp:
        if not is_cuda_available():
            raise ValueError("--amp: mmengine's AmpOptimWrapper needs a GPU, and none is visible here; on a CPU, "
                             '--cfg-options optim_wrapper.type=mmfeatdistill.CPUAmpOptimWrapper trains in bfloat16.')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise ValueError('--auto-scale-lr: the config does not say for which batch size its learning rate is. Add '
                             "it, as in --cfg-options auto_scale_lr.base_batch_size=8; '4xb2' in the name of a stock "
                             'config stands for 4 processes with 2 images each.')
        cfg.auto_scale_lr.enable = True
    check_restarts(args.resume or (cfg.get('resume') and (cfg.get('load_from') or 'auto')), cfg.work_dir)
    if args.resume == 'auto':
        # What has not begun yet begins with the weights that the config names, as it would without the option.
        cfg.resume = not cfg.get('load_from') or has_begun(cfg.work_dir)
        cfg.load_from = None if cfg.resume else cfg.load_from
    elif args.resume is not None:
        cfg.resume, cfg.load_from = True, args.resume
    if args.check_teacher is not None:
        if not is_distillation(cfg):
            raise ValueError('--check-teacher: the config has no teacher, as it is no distillation.')
        check = dict(type='mmfeatdistill.TeacherCheckHook', images=args.check_teacher)
        cfg.custom_hooks = [check, *(cfg.get('custom_hooks') or [])]
    if args.student_alone is not None:
        if not is_distillation(cfg):
            raise ValueError('--student-alone: the config is no distillation, so that there is nothing to compare.')
        others = [hook for hook in cfg.get('custom_hooks') or [] if hook.get('type') != _REPORT]
        cfg.custom_hooks = [*others, dict(type=_REPORT, student_alone=args.student_alone)]
    return cfg
