"""From a folder of COCO or Cityscapes to a published student, by the commands that the documentation names."""
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmfeatdistill.zoo.packages import config_folder
from tests.helpers.runs import CONFIGS
from tests.helpers.zoo import make_data, tiny, untrained

TOOLS = CONFIGS.parent / 'tools'
ALONE = CONFIGS.parent / 'tests' / 'helpers' / 'alone.py'


def run(folder: Path, *command: object) -> str:
    done = subprocess.run([sys.executable, '-W', 'ignore', *map(str, command)], cwd=folder, text=True,
                          capture_output=True, timeout=400)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def tiny_coco(folder: Path) -> Config:
    """Trained for long enough, and evaluated on what it was trained on, so that it finds something."""
    cfg = tiny('fcfd/fcfd_faster-rcnn_r18_fpn_from-r101_180k_coco.py', folder)
    cfg.train_cfg.update(max_iters=60, val_interval=60)
    cfg.default_hooks.checkpoint.interval = 60
    cfg.param_scheduler = []
    for name in ('val_dataloader', 'test_dataloader'):
        cfg[name].dataset.update(ann_file='annotations/instances_train2017.json', data_prefix=dict(img='train2017/'))
    for name in ('val_evaluator', 'test_evaluator'):
        cfg[name].ann_file = 'data/coco/annotations/instances_train2017.json'
    return cfg


def tiny_cityscapes(folder: Path) -> Config:
    return tiny('cwd/cwd_pspnet_r18_from-pspnet-r101_80k_cityscapes-512x1024.py', folder)


@pytest.mark.slow
@pytest.mark.parametrize('make, library, metric', [(tiny_coco, 'mmdet', 'coco/bbox_mAP'),
                                                   (tiny_cityscapes, 'mmseg', 'mIoU')])
def test_from_data_to_a_published_student(tmp_path, make, library, metric):
    make_data(tmp_path)
    cfg = make(tmp_path / 'work')
    torch.save(untrained(cfg.model.teacher.config), tmp_path / 'teacher.pth')
    cfg.model.teacher.checkpoint = 'teacher.pth'
    cfg.dump(tmp_path / 'distill.py')

    run(tmp_path, TOOLS / 'train.py', 'distill.py', '--work-dir', 'work')
    run(tmp_path, TOOLS / 'publish.py', 'work', '--out', 'released')
    [checkpoint] = (tmp_path / 'released').glob('*.pth')
    assert all(isinstance(value, torch.Tensor) for value in torch.load(checkpoint)['state_dict'].values())

    test = Path(config_folder(library)).parent / 'tools' / 'test.py'
    run(tmp_path, ALONE, test, checkpoint.with_suffix('.py'), checkpoint, '--work-dir', 'test')
    tested = json.loads(next((tmp_path / 'test').glob('*/*.json')).read_text())
    log = next((tmp_path / 'work').glob('*/vis_data/scalars.json')).read_text().splitlines()
    logged = next(line for line in map(json.loads, reversed(log)) if metric in line)
    assert logged[metric] > 0 and tested[metric] == logged[metric]
