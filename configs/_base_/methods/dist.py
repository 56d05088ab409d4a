about = 'DIST: the correlation of logits, of an image over the classes and of a class over the images'
ratio = None
classification = dict(logits=dict(
    type='FeatureMatch', taps='<logits>', loss=dict(type='DIST', beta=1.0, gamma=1.0, loss_weight=1.0)))
