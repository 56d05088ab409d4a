# Deformable DETR R50 with Deformable DETR R50 of two stages and refined boxes (47.0 box AP) as teacher, on COCO.
_base_ = ['mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py',
                 checkpoint='zoo'))
