# Levels, weights and clipping are the authors', and so is that neck and head start from the teacher's.
# They read the levels in front of their GroupNorm.
_base_ = '../_base_/pairs/reppoints_r50_fpn_from-x101-dcn_2x_coco.py'
model = dict(
    objectives=dict(
        fgd=dict(type='FGD', taps=[f'neck.fpn_convs.{level}.conv' for level in range(5)],
                 foreground_weight=1.6e-3, background_weight=8e-4,
                 attention_weight=8e-4, global_weight=8e-6)))
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
custom_hooks = _base_.custom_hooks + [dict(type='mmfeatdistill.InheritTeacherWeightsHook', parts=['neck', 'bbox_head'])]
