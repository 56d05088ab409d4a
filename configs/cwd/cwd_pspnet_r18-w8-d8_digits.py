_base_ = '../_base_/pairs/pspnet_digits.py'
model = dict(
    objectives=dict(
        logits=dict(type='FeatureMatch', taps=['decode_head.conv_seg'],
                    loss=dict(type='ChannelWiseDivergence', tau=4, loss_weight=3))))
