# RetinaNet R50 with RetinaNet R101 as teacher, on COCO.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_2x_coco.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmdet::retinanet/retinanet_r101_fpn_2x_coco.py',
                 checkpoint='zoo'))
