# DINO R18 of 4 scales with DINO R50 of 4 scales as teacher, on COCO.
_base_ = ['../../coco/dino-4scale_r18_12e_coco.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
                 checkpoint='zoo'))
