_base_ = '../_base_/pairs/pspnet_digits.py'
model = dict(
    objectives=dict(
        logits=dict(type='FeatureMatch', taps=['decode_head.conv_seg'],
                    loss=dict(type='KLDivergence', tau=1, loss_weight=1))))
