# The published pair of networks: 68.46 -> 71.19 mIoU by the authors' own recipe. Matched are the stages, the end of the
# ASPP and the end of the decoder, with the authors' weights; their teacher uses batch statistics. The stages of
# MobileNetV2 end without a ReLU: as in the authors' code, the first three are read where the next one has widened them.
_base_ = '../_base_/pairs/deeplabv3plus_mobilenet-v2_from-r101_40k_voc12aug-512x512.py'
model = dict(
    teacher=dict(batch_statistics=True),
    objectives=dict(
        stages=dict(
            type='OFD', loss_weight=1e-5, stage_weights=[1 / 8, 1 / 4, 1 / 2, 1, 1, 1 / 16],
            taps=[dict(student='backbone.layer3.0.conv.0:pre', teacher='backbone.layer1:pre'),
                  dict(student='backbone.layer4.0.conv.0:pre', teacher='backbone.layer2:pre'),
                  dict(student='backbone.layer6.0.conv.0:pre', teacher='backbone.layer3:pre'),
                  dict(student='backbone.layer7', teacher='backbone.layer4:pre'),
                  'decode_head.bottleneck:pre', 'decode_head.sep_bottleneck:pre'])))
