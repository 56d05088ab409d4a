# The published pair: 73.20 -> 76.31 mIoU. The authors' code adds CWD on the logits; all weights are theirs.
_base_ = '../_base_/pairs/deeplabv3_r18_from-pspnet-r101_40k_cityscapes-512x512.py'
model = dict(
    objectives=dict(
        stage4=dict(type='FeatureMatch', taps=['backbone[-1]'],
                    connector=dict(type='MaskedGenerator', mask_ratio=0.75),
                    loss=dict(type='SquaredError', loss_weight=2e-5)),
        logits=dict(type='FeatureMatch', taps=['decode_head.conv_seg'],
                    loss=dict(type='ChannelWiseDivergence', tau=4, loss_weight=3))))
