# The recipe of MGD's authors, whose baseline has 73.20 mIoU. mmseg's own, of 512x1024 and 80k iterations, has 76.70:
# a gain over it does not compare with one over this. The weight is MGD's for the same form of loss: chosen.
_base_ = '../_base_/pairs/deeplabv3_r18_from-pspnet-r101_40k_cityscapes-512x512.py'
model = dict(
    objectives=dict(
        stage4=dict(type='FeatureMatch', taps=['backbone[-1]'], connector=dict(type='ChannelMLP'),
                    loss=dict(type='SquaredError', loss_weight=2e-5))))
