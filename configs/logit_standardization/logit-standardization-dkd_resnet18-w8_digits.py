_base_ = '../_base_/pairs/resnet18_digits.py'
model = dict(
    objectives=dict(
        logits=dict(type='Decoupled', taps=['head.fc'], alpha=1, beta=1, tau=2, standardize=True)))
