# GFL R50 with GFL R101 as teacher, on COCO.
_base_ = ['mmdet::gfl/gfl_r50_fpn_1x_coco.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py',
                 checkpoint='zoo'))
