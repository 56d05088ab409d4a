# FEED on CIFAR-100, parallel: five WRN-28-4 to WRN-16-4; pair and weight chosen.
_base_ = '../_base_/pairs/wrn-16-4_from-ensemble-wrn-28-4_200e_cifar100.py'
model = dict(
    objectives=dict(
        stage3=dict(type='FeatureMatch', taps=['backbone'], connector=dict(type='Translator'),
                    loss=dict(type='FactorTransfer', loss_weight=1000))))
