# KD of the logits on ImageNet, Swin-B to Swin-T; both see the same mixed images. Temperature and weight
# chosen, untried.
_base_ = '../_base_/pairs/swin-tiny_from-swin-base_300e_in1k.py'
model = dict(
    objectives=dict(
        logits=dict(type='FeatureMatch', taps=['head.fc'], loss=dict(type='KLDivergence', tau=1, loss_weight=1))))
