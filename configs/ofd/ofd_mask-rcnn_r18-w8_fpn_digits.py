# In front of the FPN's last normalizations, where a stock FPN, which has none, ends: margins are estimated.
_base_ = '../_base_/pairs/mask-rcnn_digits.py'
model = dict(
    objectives=dict(
        fpn=dict(type='OFD', taps=[f'neck.fpn_convs.{level}.conv' for level in range(4)], loss_weight=3e-5,
                 stage_weights=[1, 1, 1, 1])))
