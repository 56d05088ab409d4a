# FEED on ImageNet, parallel: three ResNet-34 to ResNet-18; number of teachers and weight chosen.
_base_ = '../_base_/pairs/resnet18_from-ensemble-resnet34_100e_in1k.py'
model = dict(
    objectives=dict(
        stage4=dict(type='FeatureMatch', taps=['backbone'], connector=dict(type='Translator'),
                    loss=dict(type='FactorTransfer', loss_weight=1000))))
