# Levels, weights and clipping are the authors', and so is that neck and head start from the teacher's.
_base_ = '../_base_/pairs/solo_r50_fpn_from-r101_1x_coco.py'
model = dict(
    objectives=dict(
        fgd=dict(type='FGD', taps=['neck[:4]'], foreground_weight=1e-3, background_weight=5e-4,
                 attention_weight=5e-4, global_weight=5e-6)))
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
custom_hooks = _base_.custom_hooks + [dict(type='mmfeatdistill.InheritTeacherWeightsHook', parts=['neck', 'mask_head'])]
