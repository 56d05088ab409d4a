_base_ = '../_base_/pairs/faster-rcnn_digits.py'
model = dict(
    objectives=dict(
        fpn=dict(type='OFD', taps=['neck'], loss_weight=3e-4, stage_weights=[1, 1, 1, 1])))
