# Channel MLP: the last stage on ImageNet, ConvNeXt-B to ResNet-50; ConvNeXt's own output is pooled. Weight chosen, that
# of MGD for ResNets, untried.
_base_ = '../_base_/pairs/resnet50_from-convnext-base_100e_in1k.py'
model = dict(
    objectives=dict(
        stage4=dict(type='FeatureMatch', taps=[dict(student='backbone', teacher='backbone.stages.3')],
                    connector=dict(type='ChannelMLP'), loss=dict(type='SquaredError', loss_weight=7e-5))))
