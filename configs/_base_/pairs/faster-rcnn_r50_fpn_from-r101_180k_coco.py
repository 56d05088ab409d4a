# Faster R-CNN R50 with Faster R-CNN R101 as teacher, on COCO.
_base_ = ['../../coco/faster-rcnn_r50_fpn_180k_coco.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_ms-3x_coco.py',
                 checkpoint='zoo'))
