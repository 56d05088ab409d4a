_base_ = '../_base_/pairs/pspnet_digits.py'
model = dict(
    objectives=dict(
        stages=dict(type='FeatureMatch', taps=['backbone[1:]'],
                    loss=dict(type='AttentionTransfer', loss_weight=5))))
