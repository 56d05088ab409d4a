_base_ = '../_base_/pairs/faster-rcnn-ensemble_digits.py'
model = dict(
    objectives=dict(
        fpn=dict(type='FeatureMatch', taps=['neck[0]'], connector=dict(type='Translator'),
                 loss=dict(type='FactorTransfer', loss_weight=1000))))
