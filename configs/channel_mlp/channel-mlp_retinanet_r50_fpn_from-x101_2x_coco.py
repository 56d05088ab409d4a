# The weight and the clipping are chosen, after MGD's; the paper states none.
_base_ = '../_base_/pairs/retinanet_r50_fpn_from-x101_2x_coco.py'
model = dict(
    objectives=dict(
        fpn=dict(type='FeatureMatch', taps=['neck'], connector=dict(type='ChannelMLP'),
                 loss=dict(type='SquaredError', loss_weight=2e-5))))
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
