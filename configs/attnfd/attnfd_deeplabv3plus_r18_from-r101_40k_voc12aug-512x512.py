# The published pair of networks: 67.50 -> 73.09 mIoU by the authors' own recipe. Places and weight are theirs: the last
# stage in front of its ReLU, the ASPP, and the decoder, behind its second convolution.
_base_ = '../_base_/pairs/deeplabv3plus_r18_from-r101_40k_voc12aug-512x512.py'
model = dict(
    objectives=dict(
        attnfd=dict(type='FeatureMatch',
                    taps=['backbone.layer4:pre', 'decode_head.bottleneck', 'decode_head.sep_bottleneck'],
                    connector=dict(type='AttentionGate'), loss=dict(type='AttentionGuided', loss_weight=2))))
