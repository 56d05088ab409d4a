# Levels of one stride are matched, 8 to 64. The weight is chosen: the authors' for one-stage detectors.
_base_ = '../_base_/pairs/dino-4scale_r50_from-5scale-swin-l_12e_coco.py'
model = dict(
    objectives=dict(
        levels=dict(type='FeatureMatch', taps=[dict(student='neck', teacher='neck[1:]')],
                    loss=dict(type='Pearson', loss_weight=10))))
