_base_ = '../_base_/pairs/resnet18_digits.py'
model = dict(
    objectives=dict(
        stage4=dict(type='FeatureMatch', taps=['backbone'],
                    connector=dict(type='MaskedGenerator', mask_ratio=0.15, hide='channels'),
                    loss=dict(type='SquaredError', loss_weight=2e-3))))
