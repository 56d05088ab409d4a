_base_ = '../_base_/pairs/resnet18_digits.py'
model = dict(
    objectives=dict(
        logits=dict(type='FeatureMatch', taps=['head.fc'],
                    loss=dict(type='DIST', beta=1, gamma=1, loss_weight=1))))
