_base_ = '../_base_/pairs/mask-rcnn_digits.py'
model = dict(objectives=dict(review=dict(type='ReviewKD', taps=['neck'])))
