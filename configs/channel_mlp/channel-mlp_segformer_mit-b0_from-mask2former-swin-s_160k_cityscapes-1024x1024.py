# From a teacher whose masks and queries have no counterpart in the student: only the backbones are matched. The weight
# is that of the PSPNets: chosen.
_base_ = '../_base_/pairs/segformer_mit-b0_from-mask2former-swin-s_160k_cityscapes-1024x1024.py'
model = dict(
    objectives=dict(
        stage4=dict(type='FeatureMatch', taps=['backbone[-1]'], connector=dict(type='ChannelMLP'),
                    loss=dict(type='SquaredError', loss_weight=2e-5))))
