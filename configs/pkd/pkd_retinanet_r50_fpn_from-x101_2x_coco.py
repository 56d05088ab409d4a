# Levels and weight are the authors'.
_base_ = '../_base_/pairs/retinanet_r50_fpn_from-x101_2x_coco.py'
model = dict(
    objectives=dict(
        fpn=dict(type='FeatureMatch', taps=['neck[:4]'],
                 loss=dict(type='Pearson', loss_weight=10))))
