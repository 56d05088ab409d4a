# The weight is the authors'; the teacher is chosen, as the zoo has weights of it.
_base_ = '../_base_/pairs/deformable-detr_r50_from-refine-twostage-r50_50e_coco.py'
model = dict(objectives=dict(target_aware=dict(type='TargetAware', taps=['neck'])))
