# Channel MLP: the last stage on ImageNet, Swin-B to Swin-T; weight chosen, that of MGD for ResNets, untried.
_base_ = '../_base_/pairs/swin-tiny_from-swin-base_300e_in1k.py'
model = dict(
    objectives=dict(
        stage4=dict(type='FeatureMatch', taps=['backbone'],
                    connector=dict(type='ChannelMLP'), loss=dict(type='SquaredError', loss_weight=7e-5))))
