_base_ = '../_base_/pairs/mask-rcnn_digits.py'
model = dict(
    objectives=dict(
        fpn=dict(type='FeatureMatch', taps=['neck'], connector=dict(type='MaskedGenerator', mask_ratio=0.45),
                 loss=dict(type='SquaredError', loss_weight=1e-4))))
