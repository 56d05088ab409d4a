# All weights are this project's.
_base_ = '../_base_/pairs/deformable-detr_r18_from-r50_50e_coco.py'
model = dict(objectives=dict(queries=dict(type='SharedQueries')))
