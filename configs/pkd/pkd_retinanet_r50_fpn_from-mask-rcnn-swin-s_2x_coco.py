# The weight is the authors'. Levels of one stride are matched, 8 to 64; the authors match the first four of both.
_base_ = '../_base_/pairs/retinanet_r50_fpn_from-mask-rcnn-swin-s_2x_coco.py'
model = dict(
    objectives=dict(
        fpn=dict(type='FeatureMatch', taps=[dict(student='neck[:4]', teacher='neck[1:]')],
                 loss=dict(type='Pearson', loss_weight=6))))
