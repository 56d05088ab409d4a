# Levels, mask ratio, weight and clipping are the authors', and so is that neck and head start from the teacher's.
_base_ = '../_base_/pairs/solo_r50_fpn_from-r101_1x_coco.py'
model = dict(
    objectives=dict(
        fpn=dict(type='FeatureMatch', taps=['neck[:4]'], connector=dict(type='MaskedGenerator', mask_ratio=0.65),
                 loss=dict(type='SquaredError', loss_weight=2e-5))))
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
custom_hooks = _base_.custom_hooks + [dict(type='mmfeatdistill.InheritTeacherWeightsHook', parts=['neck', 'mask_head'])]
