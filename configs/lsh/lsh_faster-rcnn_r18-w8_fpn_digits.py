_base_ = '../_base_/pairs/faster-rcnn_digits.py'
model = dict(objectives=dict(box=dict(type='LSHRoI', loss_weight=2)))
