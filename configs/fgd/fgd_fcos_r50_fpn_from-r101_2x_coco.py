# Levels, weights and clipping are the authors', and so is that neck and head start from the teacher's.
_base_ = '../_base_/pairs/fcos_r50_fpn_from-r101_2x_coco.py'
model = dict(
    objectives=dict(
        fgd=dict(type='FGD', taps=['neck'], tau=0.8, foreground_weight=1.6e-3, background_weight=8e-4,
                 attention_weight=8e-4, global_weight=8e-6)))
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
custom_hooks = _base_.custom_hooks + [dict(type='mmfeatdistill.InheritTeacherWeightsHook', parts=['neck', 'bbox_head'])]
