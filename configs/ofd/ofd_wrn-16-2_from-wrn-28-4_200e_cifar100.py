# OFD on CIFAR-100, WRN-28-4 to WRN-16-2, with the settings and the learning rates of the authors' code: after each
# stage, the normalization in front of the next ReLU.
_base_ = '../_base_/pairs/wrn-16-2_from-wrn-28-4_200e_cifar100.py'
model = dict(
    teacher=dict(batch_statistics=True),
    objectives=dict(
        stages=dict(type='OFD', loss_weight=1e-3,
                    taps=['backbone.layer2.0.bn1', 'backbone.layer3.0.bn1', 'backbone.bn1'])))
param_scheduler = dict(milestones=[100, 150], gamma=0.1)
