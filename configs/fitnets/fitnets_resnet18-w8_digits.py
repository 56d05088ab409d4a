_base_ = '../_base_/pairs/resnet18_digits.py'
model = dict(
    objectives=dict(
        hint=dict(type='FeatureMatch', taps=['backbone.layer3'], connector=dict(type='Conv1x1'),
                  loss=dict(type='SquaredError', loss_weight=5e-3))))
