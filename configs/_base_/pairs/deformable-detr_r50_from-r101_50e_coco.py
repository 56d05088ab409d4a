# Deformable DETR R50 with Deformable DETR R101 as teacher, on COCO.
_base_ = ['mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='{{fileDirname}}/../../coco/deformable-detr_r101_50e_coco.py',
                 checkpoint='work_dirs/deformable-detr_r101_50e_coco/epoch_50.pth'))
