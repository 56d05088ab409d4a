# The weight is chosen: half the authors' for ImageNet, as maps of 300 pixels have twice as many positions.
_base_ = '../_base_/pairs/ssd300_r18_from-r50_voc0712.py'
model = dict(
    objectives=dict(
        stages=dict(type='OFD', taps=[f'backbone.layer{stage}:pre' for stage in (1, 2, 3, 4)], loss_weight=5e-5)))
