# KD of standardized logits on CIFAR-100, WRN-40-2 to WRN-16-2, with the settings of the authors' code: the labels weigh
# 0.1.
_base_ = '../_base_/pairs/wrn-16-2_from-wrn-40-2_240e_cifar100.py'
model = dict(
    student=dict(head=dict(loss=dict(loss_weight=0.1))),
    objectives=dict(
        logits=dict(type='FeatureMatch', taps=['head.fc'],
                    loss=dict(type='KLDivergence', tau=2, loss_weight=9, standardize=True))))
