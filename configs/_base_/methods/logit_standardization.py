# Temperature and weight are the authors'; standardized logits are of the same scale in every pair.
about = 'Logit standardization: KD of logits of unit deviation'
ratio = None
classification = dict(logits=dict(
    type='FeatureMatch', taps='<logits>', loss=dict(type='KLDivergence', tau=2.0, loss_weight=9.0, standardize=True)))
