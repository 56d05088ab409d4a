_base_ = '../_base_/pairs/faster-rcnn_digits.py'
model = dict(objectives=dict(review=dict(type='ReviewKD', taps=['neck'])))
