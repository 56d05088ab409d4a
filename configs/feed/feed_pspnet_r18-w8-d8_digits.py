_base_ = '../_base_/pairs/pspnet-ensemble_digits.py'
model = dict(
    objectives=dict(
        stage4=dict(type='FeatureMatch', taps=['backbone[-1]'], connector=dict(type='Translator'),
                    loss=dict(type='FactorTransfer', loss_weight=300))))
