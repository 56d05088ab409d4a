_base_ = '../_base_/pairs/faster-rcnn_r18_fpn_from-r101_180k_coco.py'
model = dict(objectives=dict(fcfd=dict(type='FCFDBoxHead', taps=['neck'])))
