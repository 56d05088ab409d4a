_base_ = '../_base_/pairs/faster-rcnn_digits.py'
model = dict(objectives=dict(fgd=dict(type='FGD', taps=['neck'])))
