# Place and weight are the authors'.
_base_ = '../_base_/pairs/pspnet_r18_from-pspnet-r101_80k_cityscapes-512x1024.py'
model = dict(
    objectives=dict(
        stage4=dict(type='FeatureMatch', taps=['backbone[-1]'], connector=dict(type='CrossAttention'),
                    loss=dict(type='InstanceNormError', loss_weight=10))))
