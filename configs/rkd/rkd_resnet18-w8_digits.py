_base_ = '../_base_/pairs/resnet18_digits.py'
model = dict(
    objectives=dict(
        distance=dict(type='FeatureMatch', taps=['neck'],
                      loss=dict(type='RelationalDistance', loss_weight=1)),
        angle=dict(type='FeatureMatch', taps=['neck'],
                   loss=dict(type='RelationalAngle', loss_weight=2))))
