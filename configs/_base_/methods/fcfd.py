about = 'FCFD: features, and what the later part of the other network makes of them'
ratio = None
detection = dict(fcfd=dict(type='FCFDBoxHead', taps='<features>'))
segmentation = dict(
    kd=dict(type='FeatureMatch', taps='<logits>', loss=dict(type='KLDivergence', tau=1.0)),
    fcfd=dict(type='FCFD', taps='<preactivations>', output='<logits>', tau=1.0, function_weight=0.1))
classification = dict(
    kd=dict(type='FeatureMatch', taps='<logits>', loss=dict(type='KLDivergence', tau=4.0)),
    fcfd=dict(type='FCFD', taps='<preactivations>', output='<logits>', tau=4.0))
