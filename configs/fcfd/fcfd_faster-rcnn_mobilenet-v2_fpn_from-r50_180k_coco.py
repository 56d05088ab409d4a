_base_ = '../_base_/pairs/faster-rcnn_mobilenet-v2_fpn_from-r50_180k_coco.py'
model = dict(objectives=dict(fcfd=dict(type='FCFDBoxHead', taps=['neck'])))
