# Channel MLP: ResNet-50's last stage on ImageNet and the patch tokens of DINOv2 ViT-B/14, 7x7 resized to 16x16; weight
# chosen, untried.
_base_ = '../_base_/pairs/resnet50_from-dinov2-base_100e_in1k.py'
model = dict(
    objectives=dict(
        stage4=dict(type='FeatureMatch', taps=['backbone'],
                    connector=dict(type='ChannelMLP'), loss=dict(type='SquaredError', loss_weight=2e-5))))
