_base_ = '../_base_/pairs/resnet18_digits.py'
stages = [f'backbone.layer{stage}:pre' for stage in (1, 2, 3, 4)]
model = dict(objectives=dict(review=dict(type='ReviewKD', taps=[*stages, 'neck'])))
