# All weights are this project's.
_base_ = '../_base_/pairs/dino-4scale_r50_from-5scale-swin-l_12e_coco.py'
model = dict(objectives=dict(queries=dict(type='SharedQueries')))
