# The published pair of networks: 72.07 -> 73.98 mIoU by the authors' own recipe. Matched are the stages, the end of the
# ASPP and the end of the decoder before their ReLUs, with the authors' weights; their teacher uses batch statistics.
_base_ = '../_base_/pairs/deeplabv3plus_r18_from-r101_40k_voc12aug-512x512.py'
model = dict(
    teacher=dict(batch_statistics=True),
    objectives=dict(
        stages=dict(
            type='OFD', loss_weight=1e-5, stage_weights=[1 / 8, 1 / 4, 1 / 2, 1, 1, 1 / 16],
            taps=[*(f'backbone.layer{stage}:pre' for stage in (1, 2, 3, 4)), 'decode_head.bottleneck:pre',
                  'decode_head.sep_bottleneck:pre'])))
