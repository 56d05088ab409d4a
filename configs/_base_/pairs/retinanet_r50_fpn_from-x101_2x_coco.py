# RetinaNet R50 with RetinaNet X101-64x4d as teacher, on COCO; the teacher's 1x weights are better than its 2x.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_2x_coco.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmdet::retinanet/retinanet_x101-64x4d_fpn_1x_coco.py',
                 checkpoint='zoo'))
