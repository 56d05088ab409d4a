# Deformable DETR R18 with Deformable DETR R50 as teacher, on COCO.
_base_ = ['../../coco/deformable-detr_r18_50e_coco.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
                 checkpoint='zoo'))
