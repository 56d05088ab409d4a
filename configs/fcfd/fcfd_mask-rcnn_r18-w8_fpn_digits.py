_base_ = '../_base_/pairs/mask-rcnn_digits.py'
model = dict(objectives=dict(fcfd=dict(type='FCFDBoxHead', taps=['neck'])))
