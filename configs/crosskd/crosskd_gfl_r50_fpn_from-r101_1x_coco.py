# The place, after the third of four convolutions, is the authors'; weights are this project's.
_base_ = '../_base_/pairs/gfl_r50_fpn_from-r101_1x_coco.py'
model = dict(
    objectives=dict(
        cross=dict(type='CrossHead', taps=['bbox_head.cls_convs.2:each', 'bbox_head.reg_convs.2:each'])))
