_base_ = '../_base_/pairs/resnet18_digits.py'
model = dict(
    objectives=dict(
        kd=dict(type='FeatureMatch', taps=['head.fc'], loss=dict(type='KLDivergence', tau=4.0)),
        fcfd=dict(type='FCFD', output='head.fc', tau=4.0, appearance_weight=5.0,
                  taps=['backbone.layer1:pre', 'backbone.layer2:pre', 'backbone.layer3:pre', 'backbone.layer4:pre'])))
