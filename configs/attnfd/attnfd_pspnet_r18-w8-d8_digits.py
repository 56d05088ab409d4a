# The last stage in front of its ReLU and the pyramid pooling, as the authors take the last stage and the ASPP.
_base_ = '../_base_/pairs/pspnet_digits.py'
model = dict(
    objectives=dict(
        attnfd=dict(type='FeatureMatch', taps=['backbone.layer4:pre', 'decode_head.bottleneck'],
                    connector=dict(type='AttentionGate'), loss=dict(type='AttentionGuided', loss_weight=2))))
