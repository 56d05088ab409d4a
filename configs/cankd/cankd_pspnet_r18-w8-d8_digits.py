_base_ = '../_base_/pairs/pspnet_digits.py'
model = dict(
    objectives=dict(
        stage4=dict(type='FeatureMatch', taps=['backbone[-1]'], connector=dict(type='CrossAttention'),
                    loss=dict(type='InstanceNormError', loss_weight=1))))
