"""What a trained model sees and predicts on some validation images, drawn by mmengine's visualizers."""
import os
import os.path as osp
from functools import partial
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from mmfeatdistill.taps.feature_map import as_map
from mmfeatdistill.taps.reader import TapReader

_SIDE = 320
"""Shorter side of the drawn images; those of small data sets are enlarged to it."""


@torch.no_grad()
def save_snapshots(runner: Runner, tap: str, folder: str, count: int = 4) -> None:
    """Draws the input, the tapped feature and the prediction for evenly spaced validation images.

    Writes ``input_<i>.png``, ``feature_<i>.png`` (mean over the channels of the tap's first feature, laid
    over the image) and ``prediction_<i>.png``.

    Args:
        runner (Runner): With a trained model and a validation loop.
        tap (str): See :mod:`mmfeatdistill.taps.reader`.
        folder (str): Where the pictures go.
        count (int): Number of images. Defaults to 4.
    """
    os.makedirs(folder, exist_ok=True)
    model, dataset = runner.model, runner.val_dataloader.dataset
    model.eval()
    reader = TapReader(model, [tap], owner='model')
    runner.visualizer.dataset_meta = dataset.metainfo
    for index in range(count):
        data = dataset[index * len(dataset) // count]
        image = _enlarged(mmcv.imread(_path(data['data_samples']), channel_order='rgb'))
        _predict_for_size(data['data_samples'], image.shape[:2])
        features, (sample,) = reader.read(partial(model.test_step, pseudo_collate([data])))
        drawn = Visualizer.draw_featmap(as_map(features[tap][0])[0].float(), image, alpha=0.3)
        mmcv.imwrite(image[..., ::-1], osp.join(folder, f'input_{index}.png'))
        mmcv.imwrite(drawn[..., ::-1], osp.join(folder, f'feature_{index}.png'))
        _draw(runner.visualizer, image, sample, osp.join(folder, f'prediction_{index}.png'))


def _path(sample: Any) -> str:
    return sample.metainfo['img_path']


def _enlarged(image: np.ndarray) -> np.ndarray:
    factor = max(1, round(_SIDE / min(image.shape[:2])))
    return mmcv.imrescale(image, factor, interpolation='bicubic') if factor > 1 else image


def _predict_for_size(sample: Any, size: tuple[int, int]) -> None:
    """Lets detectors and segmenters scale their predictions to the drawn image."""
    height, width = sample.metainfo['img_shape'][:2]
    sample.set_metainfo(dict(ori_shape=size, scale_factor=(width / size[1], height / size[0])))


def _draw(visualizer: Any, image: np.ndarray, sample: Any, path: str) -> None:
    if hasattr(visualizer, 'visualize_cls'):
        visualizer.visualize_cls(image, sample, draw_gt=False, out_file=path)
    else:
        visualizer.add_datasample('snapshot', image, sample, draw_gt=False, out_file=path)
