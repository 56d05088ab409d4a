# Levels, weights (the defaults) and clipping are the authors'.
_base_ = '../_base_/pairs/mask-rcnn_r50_fpn_from-cascade-x101-dcn_2x_coco.py'
model = dict(objectives=dict(fgd=dict(type='FGD', taps=['neck[:4]'])))
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
