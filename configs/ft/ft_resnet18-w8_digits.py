_base_ = '../_base_/pairs/resnet18_digits.py'
model = dict(
    objectives=dict(
        stage4=dict(type='FeatureMatch', taps=['backbone'], connector=dict(type='Translator'),
                    loss=dict(type='FactorTransfer', loss_weight=100))))
