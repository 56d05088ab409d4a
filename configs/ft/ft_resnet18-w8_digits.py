_base_ = '../_base_/pairs/resnet18_digits.py'
model = dict(objectives=dict(stage4=dict(type='FT', taps=['backbone'], loss_weight=100)))
