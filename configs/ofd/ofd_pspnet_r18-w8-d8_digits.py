# Stages and the pyramid pooling, weighted as the authors weight the stages and the ASPP of DeepLabV3+.
_base_ = '../_base_/pairs/pspnet_digits.py'
model = dict(
    objectives=dict(
        stages=dict(
            type='OFD', taps=[*(f'backbone.layer{stage}:pre' for stage in (1, 2, 3, 4)), 'decode_head.bottleneck:pre'],
            loss_weight=1e-4, stage_weights=[1 / 8, 1 / 4, 1 / 2, 1, 1])))
