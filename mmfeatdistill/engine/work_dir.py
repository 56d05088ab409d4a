"""What a training has left in its work directory."""
import json
import os.path as osp
from glob import glob
from pathlib import Path

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
    told = Path(work_dir, 'last_checkpoint')
    if told.is_file():
        # The work directory may have been moved since.
        last = Path(work_dir, osp.basename(told.read_text().strip()))
        if last.is_file():
            return str(last)
    raise FileNotFoundError(f'{osp.abspath(work_dir)} has neither best_*.pth nor the file that last_checkpoint names. '
                            'Give the work directory of a training, or choose a file by --checkpoint.')


def read_scalars(work_dir: str) -> list[list[dict[str, float]]]:
    """The logged scalars of a work directory.

    Args:
        work_dir (str): Of one training, perhaps resumed several times.

    Returns:
        list[list[dict]]: The lines of each start, oldest first.
    """
    # A killed training may have left half a line.
    return [[json.loads(line) for line in file.read_text().splitlines() if line.strip().endswith('}')]
            for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json'))]


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
