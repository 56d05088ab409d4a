# Teacher: SOLO R101; the zoo has R50 only.
_base_ = 'mmdet::solo/solo_r50_fpn_3x_coco.py'
model = dict(backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
