"""Lets mmdet's SSD predict, for configs with ``custom_imports = dict(imports=['mmfeatdistill.zoo.ssd_fix'])``.

``SSDHead`` never sets ``loss_cls``, which the prediction of all dense heads asks for (mmdetection issues 11063, 11305
and 11780, open in mmdet 3.3 and in the maintained 3.5.1). SSD has no such loss, and None says so.
"""
from mmdet.models.dense_heads import SSDHead

if not hasattr(SSDHead, 'loss_cls'):
    SSDHead.loss_cls = None
