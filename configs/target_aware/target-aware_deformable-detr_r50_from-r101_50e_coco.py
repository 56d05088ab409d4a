# The authors' pair of networks and weight; the teacher is trained first.
_base_ = '../_base_/pairs/deformable-detr_r50_from-r101_50e_coco.py'
model = dict(objectives=dict(target_aware=dict(type='TargetAware', taps=['neck'])))
