"""Real trainings of the digit configs, small enough for a test."""
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

CONFIGS = Path(__file__).parents[2] / 'configs'
DISTILLED = {
    'classification': 'channel_mlp/channel-mlp_resnet18-w8_digits.py',
    'faster_rcnn': 'channel_mlp/channel-mlp_faster-rcnn_r18-w8_fpn_digits.py',
    'mask_rcnn': 'channel_mlp/channel-mlp_mask-rcnn_r18-w8_fpn_digits.py',
    'pspnet': 'channel_mlp/channel-mlp_pspnet_r18-w8-d8_digits.py',
}
STUDENTS = {
    'classification': 'digits/resnet18-w8_digits.py',
    'faster_rcnn': 'digits/faster-rcnn_r18-w8_fpn_digits.py',
    'mask_rcnn': 'digits/mask-rcnn_r18-w8_fpn_digits.py',
    'pspnet': 'digits/pspnet_r18-w8-d8_digits.py',
}


def small(config: str, work_dir, **options) -> Config:
    """A config of ours with small batches, few epochs, and an untrained teacher.

    Args:
        config: Path below configs/.
        work_dir: Of the run.
        **options: Further overrides; a double underscore stands for a dot.
    """
    cfg = Config.fromfile(CONFIGS / config)
    cfg.merge_from_dict({
        'work_dir': str(work_dir), 'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 1,
        'train_dataloader.batch_size': 8, 'log_level': 'ERROR', 'default_hooks.logger.interval': 1,
        'default_hooks.checkpoint.interval': 1, 'default_hooks.checkpoint.max_keep_ckpts': -1,
        # Left to the garbage collector with its runner, a persistent worker takes five seconds to end.
        **{f'{split}_dataloader.persistent_workers': False for split in ('train', 'val', 'test')}})
    for teacher in teachers_of(cfg):
        teacher.checkpoint = None
    cfg.merge_from_dict({name.replace('__', '.'): value for name, value in options.items()})
    return cfg


def teachers_of(cfg: Config) -> list:
    """The configs of the teachers: none, one, or an ensemble."""
    teachers = cfg.model.get('teacher', [])
    return teachers if isinstance(teachers, list) else [teachers]


def train(cfg: Config) -> Runner:
    """Trains in this process."""
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def detecting_digits(work_dir, model) -> Config:
    """Two epochs of two iterations of a distilled detector, without validation.

    Args:
        work_dir: Of the run.
        model: The config of the distiller.
    """
    cfg = small(DISTILLED['faster_rcnn'], work_dir, train_dataloader__num_batch_per_epoch=2,
                train_dataloader__num_workers=0, train_dataloader__batch_size=2)
    cfg.update({f'val_{part}': None for part in ('cfg', 'dataloader', 'evaluator')})
    cfg.default_hooks.checkpoint.save_best = None
    cfg.model = model
    return cfg
