# All levels of the FPN; the weight is the authors'.
_base_ = '../_base_/pairs/faster-rcnn_r50_fpn_from-r101_180k_coco.py'
model = dict(objectives=dict(review=dict(type='ReviewKD', taps=['neck'], loss_weight=1)))
