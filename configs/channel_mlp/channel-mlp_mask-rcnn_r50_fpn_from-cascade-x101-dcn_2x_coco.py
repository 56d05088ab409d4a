# The weight and the clipping are chosen, after MGD's; the paper states none.
_base_ = '../_base_/pairs/mask-rcnn_r50_fpn_from-cascade-x101-dcn_2x_coco.py'
model = dict(
    objectives=dict(
        fpn=dict(type='FeatureMatch', taps=['neck'], connector=dict(type='ChannelMLP'),
                 loss=dict(type='SquaredError', loss_weight=5e-7))))
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
