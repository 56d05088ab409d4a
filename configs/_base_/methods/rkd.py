about = 'RKD: distances and angles between the pooled features of images'
ratio = None
classification = dict(
    distance=dict(type='FeatureMatch', taps='<penultimate>', loss=dict(type='RelationalDistance', loss_weight=1.0)),
    angle=dict(type='FeatureMatch', taps='<penultimate>', loss=dict(type='RelationalAngle', loss_weight=2.0)))
