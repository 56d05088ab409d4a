_base_ = '../_base_/pairs/resnet18_digits.py'
model = dict(
    objectives=dict(
        stages=dict(type='FeatureMatch', taps=[f'backbone.layer{stage}' for stage in (1, 2, 3, 4)],
                    loss=dict(type='AttentionTransfer', loss_weight=0.3))))
