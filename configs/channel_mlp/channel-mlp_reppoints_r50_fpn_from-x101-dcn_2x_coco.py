# The weight and the clipping are chosen, after MGD's; the paper states none.
# The levels are read in front of their GroupNorm, as MGD reads them, where its weight belongs.
_base_ = '../_base_/pairs/reppoints_r50_fpn_from-x101-dcn_2x_coco.py'
model = dict(
    objectives=dict(
        fpn=dict(type='FeatureMatch', taps=[f'neck.fpn_convs.{level}.conv' for level in range(5)],
                 connector=dict(type='ChannelMLP'), loss=dict(type='SquaredError', loss_weight=2e-5))))
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
