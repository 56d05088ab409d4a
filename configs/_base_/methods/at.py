about = 'AT: at which positions each stage is active'
segmentation = classification = dict(
    stages=dict(type='FeatureMatch', taps='<stages>', loss=dict(type='AttentionTransfer')))
