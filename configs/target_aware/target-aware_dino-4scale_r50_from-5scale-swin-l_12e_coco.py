# Levels of one stride are matched, 8 to 64. Pair and weight are chosen: the authors' weight for Deformable DETR.
_base_ = '../_base_/pairs/dino-4scale_r50_from-5scale-swin-l_12e_coco.py'
model = dict(
    objectives=dict(target_aware=dict(type='TargetAware', taps=[dict(student='neck', teacher='neck[1:]')])))
