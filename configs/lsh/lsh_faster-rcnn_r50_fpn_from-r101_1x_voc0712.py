# LSHL2. The clipping is chosen: the authors report that detectors easily turn to NaN.
_base_ = '../_base_/pairs/faster-rcnn_r50_fpn_from-r101_1x_voc0712.py'
model = dict(objectives=dict(box=dict(type='LSHRoI')))
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
