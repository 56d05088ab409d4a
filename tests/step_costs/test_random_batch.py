"""Random images with what the pipeline of a config would load next to them."""
import pytest

from mmfeatdistill.step_costs.random_batch import random_batch
from mmfeatdistill.zoo.configs import load_config


@pytest.mark.parametrize('config, masks, label_map', [
    ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', False, False),
    ('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', False, False),
    ('rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py', True, False),
    ('lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py', True, False),  # in a dataset in a dataset
    ('htc/htc_r50_fpn_1x_coco.py', True, True),
    ('panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py', True, True)])
def test_objects_have_what_the_pipeline_loads(config, masks, label_map):
    (sample,) = random_batch(load_config(f'mmdet::{config}'), 1, 48, 64)['data_samples']
    assert ('masks' in sample.gt_instances, 'gt_sem_seg' in sample) == (masks, label_map)
    if masks:
        assert sample.gt_instances.masks.masks.shape == (8, 48, 64)
    if label_map:
        assert sample.gt_sem_seg.sem_seg.shape == (1, 48, 64)
