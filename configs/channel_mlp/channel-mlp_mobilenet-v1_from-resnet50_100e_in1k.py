# Channel MLP: the last feature map on ImageNet, ResNet-50 to MobileNetV1; weight chosen, that of MGD.
_base_ = '../_base_/pairs/mobilenet-v1_from-resnet50_100e_in1k.py'
model = dict(
    objectives=dict(
        stage4=dict(type='FeatureMatch', taps=['backbone'],
                    connector=dict(type='ChannelMLP'), loss=dict(type='SquaredError', loss_weight=7e-5))))
