# The stages that the student trains: its first is frozen. The weight is chosen: the authors' for segmentation.
_base_ = '../_base_/pairs/retinanet_r18_fpn_from-r50_1x_voc0712.py'
model = dict(
    objectives=dict(
        stages=dict(type='OFD', taps=[f'backbone.layer{stage}:pre' for stage in (2, 3, 4)], loss_weight=1e-5)))
