_base_ = '../_base_/pairs/faster-rcnn_digits.py'
model = dict(
    objectives=dict(
        fpn=dict(type='FeatureMatch', taps=['neck'], connector=dict(type='Conv1x1'),
                 loss=dict(type='Pearson', loss_weight=1))))
