about = 'AttnFD: features, refined by attention over channels and positions'
ratio = None
segmentation = dict(features=dict(
    type='FeatureMatch', taps='<features>', connector=dict(type='AttentionGate'),
    loss=dict(type='AttentionGuided', loss_weight=2.0)))
