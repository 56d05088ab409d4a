_base_ = '../_base_/pairs/resnet18_digits.py'
model = dict(
    objectives=dict(
        stages=dict(type='OFD', taps=[f'backbone.layer{stage}:pre' for stage in (1, 2, 3, 4)], loss_weight=1e-2)))
