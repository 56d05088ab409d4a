"""What a training has left in its work directory."""
import json
import os.path as osp
from glob import glob
from pathlib import Path
from typing import Any, Optional, Union

from mmengine.config import Config


def pick_checkpoint(work_dir: str) -> str:
    """The checkpoint of a work directory that is worth releasing.

    Args:
        work_dir (str): Of a training.

    Returns:
        str: Path of ``best_*.pth``, or of the last checkpoint where no best was kept.

    Raises:
        FileNotFoundError: There is none.
        ValueError: There are several best ones.
    """
    best = sorted(glob(osp.join(work_dir, 'best_*.pth')))
    if len(best) > 1:
        raise ValueError(f'{work_dir} has several best checkpoints: {", ".join(map(osp.basename, best))}. '
                         'Choose one by --checkpoint.')
    if best:
        return best[0]
    last = last_checkpoint(work_dir)
    if last is not None:
        return last
    raise FileNotFoundError(f'{osp.abspath(work_dir)} has neither best_*.pth nor the file that last_checkpoint names. '
                            'Give the work directory of a training, or choose a file by --checkpoint.')


def has_begun(work_dir: str) -> bool:
    """Whether a training has left a checkpoint there, as mmengine notes it to resume.

    Args:
        work_dir (str): Of a training.
    """
    return Path(work_dir, 'last_checkpoint').exists()


def last_checkpoint(work_dir: str) -> Optional[str]:
    """The last checkpoint of a training, also where its work directory has been moved since.

    Args:
        work_dir (str): Of a training.

    Returns:
        str: Its path; None where there is none.
    """
    told = Path(work_dir, 'last_checkpoint')
    last = Path(work_dir, osp.basename(told.read_text().strip())) if told.is_file() else None
    return str(last) if last is not None and last.is_file() else None


def best_metric(cfg: Config) -> Any:
    """The metric by which a training keeps its best checkpoint.

    Args:
        cfg (Config): Of the training.

    Returns:
        str: As ``save_best`` has it, perhaps ``'auto'``, the first of several; None where no best is kept.

    Examples:
        >>> best_metric(Config(dict(default_hooks=dict(checkpoint=dict(save_best=['coco/bbox_mAP', 'coco/segm_mAP'])))))
        'coco/bbox_mAP'
    """
    best = ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('save_best')
    return best[0] if isinstance(best, (list, tuple)) and best else best


def read_scalars(work_dir: str) -> list[list[dict[str, float]]]:
    """The logged scalars of a work directory.

    Args:
        work_dir (str): Of one training, perhaps resumed several times.

    Returns:
        list[list[dict]]: The lines of each start, oldest first.
    """
    return [read_scalar_file(file) for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json'))]


def read_scalar_file(file: Union[str, Path]) -> list[dict[str, float]]:
    """The logged scalars of one start.

    Args:
        file (str | Path): As mmengine's local backend writes it.

    Returns:
        list[dict]: Its lines.
    """
    # A killed training may have left half a line.
    return [json.loads(line) for line in Path(file).read_text().splitlines() if line.strip().endswith('}')]


def trained_config(work_dir: str) -> Config:
    """The config of a training, as its last start had it.

    Args:
        work_dir (str): Of one training, perhaps resumed.

    Returns:
        Config: As mmengine's local backend keeps it next to the scalars.

    Raises:
        FileNotFoundError: No training has left logs there.
    """
    files = sorted(Path(work_dir).glob('*/vis_data/config.py'))
    if not files:
        raise FileNotFoundError(f'{osp.abspath(work_dir)} is no work directory of a training: there are no logs '
                                '(<start>/vis_data) in it.')
    # See mmfeatdistill.engine.stock_student.readable_text.
    return Config.fromstring("inf, nan = float('inf'), float('nan')\n" + files[-1].read_text(), '.py')
