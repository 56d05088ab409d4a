_base_ = '../_base_/pairs/mask-rcnn_digits.py'
model = dict(objectives=dict(fgd=dict(type='FGD', taps=['neck'])))
