_base_ = '../_base_/pairs/resnet18_digits.py'
model = dict(
    objectives=dict(
        stages=dict(type='FeatureMatch', taps=[f'backbone.layer{stage}:pre' for stage in (1, 2, 3, 4)],
                    connector=dict(type='ConvBN'), loss=dict(type='ActivationBoundary', loss_weight=3e-4))))
