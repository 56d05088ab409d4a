about = 'AB: on which side of zero each pre-activation is'
classification = dict(stages=dict(
    type='FeatureMatch', taps='<preactivations>', connector=dict(type='ConvBN'), loss=dict(type='ActivationBoundary')))
