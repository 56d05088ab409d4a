# DINO R50 of 4 scales with DINO Swin-L of 5 scales as teacher, on COCO.
_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmdet::dino/dino-5scale_swin-l_8xb2-12e_coco.py',
                 checkpoint='zoo'))
