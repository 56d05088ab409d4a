# RetinaNet R50 with RetinaNet R101 as teacher, on COCO, 180k iterations.
_base_ = ['../../coco/retinanet_r50_fpn_180k_coco.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmdet::retinanet/retinanet_r101_fpn_ms-640-800-3x_coco.py',
                 checkpoint='zoo'))
