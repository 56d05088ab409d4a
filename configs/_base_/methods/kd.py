about = 'KD: logits'
ratio = None
segmentation = dict(logits=dict(
    type='FeatureMatch', taps='<logits>', loss=dict(type='KLDivergence', tau=1.0, loss_weight=1.0)))
classification = dict(logits=dict(
    type='FeatureMatch', taps='<logits>', loss=dict(type='KLDivergence', tau=4.0, loss_weight=0.1)))
