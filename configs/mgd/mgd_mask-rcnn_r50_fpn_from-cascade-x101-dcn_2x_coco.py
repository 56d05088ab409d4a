# Levels, mask ratio, weight and clipping are the authors'.
_base_ = '../_base_/pairs/mask-rcnn_r50_fpn_from-cascade-x101-dcn_2x_coco.py'
model = dict(
    objectives=dict(
        fpn=dict(type='FeatureMatch', taps=['neck[:4]'], connector=dict(type='MaskedGenerator', mask_ratio=0.45),
                 loss=dict(type='SquaredError', loss_weight=5e-7))))
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
