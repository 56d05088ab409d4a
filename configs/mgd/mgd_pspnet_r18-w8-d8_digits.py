_base_ = '../_base_/pairs/pspnet_digits.py'
model = dict(
    objectives=dict(
        stage4=dict(type='FeatureMatch', taps=['backbone[-1]'],
                    connector=dict(type='MaskedGenerator', mask_ratio=0.75),
                    loss=dict(type='SquaredError', loss_weight=1e-4))))
