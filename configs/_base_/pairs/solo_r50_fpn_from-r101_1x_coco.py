# SOLO R50 with SOLO R101 as teacher, on COCO.
_base_ = ['mmdet::solo/solo_r50_fpn_1x_coco.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='{{fileDirname}}/../../coco/solo_r101_fpn_3x_coco.py',
                 checkpoint='work_dirs/solo_r101_fpn_3x_coco/epoch_36.pth'))
