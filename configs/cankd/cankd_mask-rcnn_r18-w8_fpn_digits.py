_base_ = '../_base_/pairs/mask-rcnn_digits.py'
model = dict(
    objectives=dict(
        fpn=dict(type='FeatureMatch', taps=['neck'], connector=dict(type='CrossAttention'),
                 loss=dict(type='InstanceNormError', loss_weight=1))))
