# Channel MLP: the last stage on ImageNet, ResNet-34 to ResNet-18; weight chosen, that of MGD.
_base_ = '../_base_/pairs/resnet18_from-resnet34_100e_in1k.py'
model = dict(
    objectives=dict(
        stage4=dict(type='FeatureMatch', taps=['backbone'],
                    connector=dict(type='ChannelMLP'), loss=dict(type='SquaredError', loss_weight=7e-5))))
