_base_ = '../_base_/pairs/pspnet_digits.py'
model = dict(
    objectives=dict(
        kd=dict(type='FeatureMatch', taps=['decode_head.conv_seg'], loss=dict(type='KLDivergence', tau=1.0)),
        fcfd=dict(type='FCFD', output='decode_head.conv_seg', tau=1.0, appearance_weight=5.0, function_weight=0.1,
                  taps=['backbone.layer1:pre', 'backbone.layer2:pre', 'backbone.layer3:pre', 'backbone.layer4:pre'])))
