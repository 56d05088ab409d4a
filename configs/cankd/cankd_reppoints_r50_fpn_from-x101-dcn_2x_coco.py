# Levels, weight and clipping are the authors'.
_base_ = '../_base_/pairs/reppoints_r50_fpn_from-x101-dcn_2x_coco.py'
model = dict(
    objectives=dict(
        fpn=dict(type='FeatureMatch', taps=['neck[:4]'], connector=dict(type='CrossAttention'),
                 loss=dict(type='InstanceNormError', loss_weight=10))))
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
