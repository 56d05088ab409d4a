_base_ = '../_base_/pairs/resnet18_digits.py'
model = dict(
    objectives=dict(
        logits=dict(type='FeatureMatch', taps=['head.fc'],
                    loss=dict(type='KLDivergence', tau=2, loss_weight=1, standardize=True))))
