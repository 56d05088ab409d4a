# ATSS R50 with ATSS R101 as teacher, on COCO.
_base_ = ['mmdet::atss/atss_r50_fpn_1x_coco.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmdet::atss/atss_r101_fpn_1x_coco.py',
                 checkpoint='zoo'))
