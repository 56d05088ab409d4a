_base_ = '../_base_/pairs/faster-rcnn_digits.py'
model = dict(objectives=dict(fcfd=dict(type='FCFDBoxHead', taps=['neck'])))
