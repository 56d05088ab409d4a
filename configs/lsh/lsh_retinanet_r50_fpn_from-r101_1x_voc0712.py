# LSHL2 of what the classifier reads, on each of the five levels: the mean of their losses times the authors' weight 7.
# The clipping is chosen: the authors report that detectors easily turn to NaN.
_base_ = '../_base_/pairs/retinanet_r50_fpn_from-r101_1x_voc0712.py'
model = dict(
    objectives=dict(
        head=dict(type='LSH', taps=['bbox_head.cls_convs.3:each'], classifier='bbox_head.retina_cls', hashes=4096,
                  bias='zero', loss_weight=7 / 5)))
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
