"""Models of stock configs train and predict with an mmcv that has no compiled operators.

With a compiled mmcv, the stand-ins are called all the same.
"""
from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmengine.structures import InstanceData

from tests.helpers import models

CHANNELS = 32


def dcn(model: Any) -> None:
    """With deformable convolutions in three stages."""
    assert model.backbone.dcn.type in ('DCN', 'DCNv2') and not model.backbone.dcn.fallback_on_stride
    model.backbone.zero_init_residual = False  # no gradient would come to the offsets
    two_stage(model)


def two_stage(model: Any) -> None:
    model.backbone.update(frozen_stages=-1, norm_eval=False)
    if model.backbone.type == 'ResNeXt':
        model.backbone.update(groups=8, base_width=2)
    else:
        model.backbone.base_channels = 16
        model.neck.in_channels = [64, 128, 256, 512]
    model.neck.out_channels = model.rpn_head.in_channels = model.rpn_head.feat_channels = CHANNELS
    for sampler in (model.train_cfg.rpn.sampler, model.train_cfg.rcnn.sampler):
        sampler.num = 32
    for proposals in (model.train_cfg.rpn_proposal, model.test_cfg.rpn):
        proposals.update(nms_pre=100, max_per_img=20)
    head = model.roi_head
    for part in (head, head.get('mask_head') or {}):
        for extractor in ('bbox_roi_extractor', 'mask_roi_extractor'):
            if part.get(extractor):
                part[extractor].out_channels = CHANNELS
    head.bbox_head.update(in_channels=CHANNELS, fc_out_channels=32)
    if head.get('mask_head'):
        mask = head.mask_head
        mask.in_channels = CHANNELS
        if mask.type == 'CoarseMaskHead':
            mask.update(conv_out_channels=CHANNELS, fc_out_channels=32)
            head.point_head.update(in_channels=CHANNELS, fc_channels=CHANNELS)
        else:
            mask.conv_out_channels = CHANNELS


def transformer(model: Any) -> None:
    model.backbone.update(base_channels=16, frozen_stages=-1)
    model.neck.in_channels = [128, 256, 512]
    model.num_queries = 30
    for part in (model.encoder, model.decoder):
        part.num_layers = 2
        part.layer_cfg.ffn_cfg.feedforward_channels = 64
    if model.get('dn_cfg'):
        model.dn_cfg.group_cfg.update(num_dn_queries=10)


def as_is(model: Any) -> None:
    """Small as it is shipped."""


STOCK: dict[str, tuple[str, Callable[[Any], None]]] = {
    'X101-DCN': ('dcn/faster-rcnn_x101-32x4d-dconv-c3-c5_fpn_1x_coco.py', dcn),
    'DCNv2': ('dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py', dcn),
    'DeformableDETR': ('deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', transformer),
    'DINO': ('dino/dino-4scale_r50_8xb2-12e_coco.py', transformer),
    'MaskRCNN': ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', two_stage),
    'RTMDet': ('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', as_is),
    'PointRend': ('point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py', two_stage)}


def without_checkpoints(cfg: Any) -> None:
    """Random weights."""
    for value in cfg.values() if isinstance(cfg, dict) else cfg if isinstance(cfg, (list, tuple)) else ():
        without_checkpoints(value)
    if isinstance(cfg, dict) and isinstance(cfg.get('init_cfg'), dict) and cfg['init_cfg'].get('checkpoint'):
        cfg['init_cfg'] = None


def batch(with_masks: bool) -> dict:
    from mmdet.structures.mask import BitmapMasks
    made = models.detection_batch((64, 96))
    for sample in made['data_samples']:
        sample.set_metainfo(dict(pad_shape=(64, 96), batch_input_shape=(64, 96)))
        boxes = sample.gt_instances.bboxes
        masks = torch.zeros(2, 64, 96, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
            mask[y1:y2, x1:x2] = 1
        if with_masks:
            sample.gt_instances.masks = BitmapMasks(masks.numpy(), 64, 96)
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
    return made


@pytest.mark.slow
@pytest.mark.parametrize('name', STOCK)
def test_stock_config_trains_and_predicts(name, stand_ins):
    file, shrink = STOCK[name]
    cfg = models.stock(f'mmdet::{file}')
    without_checkpoints(cfg)
    for augmentation in cfg.data_preprocessor.get('batch_augments') or ():
        augmentation.size = (64, 96)
    shrink(cfg)
    model = models.build(cfg)
    model.init_weights()
    optimizer = torch.optim.SGD(model.parameters(), 1e-7)
    with_masks = bool(cfg.get('roi_head', {}).get('mask_head'))
    loss, _ = model.parse_losses(model(**model.data_preprocessor(batch(with_masks), True), mode='loss'))
    loss.backward()
    assert loss.isfinite()
    gradients = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.grad is not None}
    assert len(gradients) > 20 and all(gradient.isfinite().all() for gradient in gradients.values())
    if 'DCN' in name:
        offsets = [gradient for key, gradient in gradients.items() if 'conv_offset' in key]
        assert len(offsets) == 2 * (30 if name == 'X101-DCN' else 13) and all(gradient.any() for gradient in offsets)
    optimizer.step()
    model.eval()
    with torch.no_grad():
        for sample in model.test_step(batch(with_masks)):
            assert sample.pred_instances.bboxes.shape[1] == 4
            assert sample.pred_instances.scores.isfinite().all()
