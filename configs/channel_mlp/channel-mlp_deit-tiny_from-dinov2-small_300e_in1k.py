# Channel MLP of class tokens: DINOv2 ViT-S/14 to DeiT-Ti on ImageNet. Their patches differ in number. Weight chosen,
# untried.
_base_ = '../_base_/pairs/deit-tiny_from-dinov2-small_300e_in1k.py'
model = dict(
    objectives=dict(
        class_token=dict(type='FeatureMatch', taps=['backbone'],
                         connector=dict(type='ChannelMLP'), loss=dict(type='SquaredError', loss_weight=1e-3))))
