# The weight is chosen: MGD's for two-stage detectors.
_base_ = '../_base_/pairs/mask-rcnn_swin-t_fpn_from-swin-s_3x_coco.py'
model = dict(
    objectives=dict(
        fpn=dict(type='FeatureMatch', taps=['neck'], connector=dict(type='ChannelMLP'),
                 loss=dict(type='SquaredError', loss_weight=5e-7))))
