# The published pair: 74.87 -> 75.54 mIoU, with temperature and weight of its config in MMRazor.
_base_ = '../_base_/pairs/pspnet_r18_from-pspnet-r101_80k_cityscapes-512x1024.py'
model = dict(
    objectives=dict(
        logits=dict(type='FeatureMatch', taps=['decode_head.conv_seg'],
                    loss=dict(type='ChannelWiseDivergence', tau=1, loss_weight=5))))
