# The ratios are those of Channel MLP, whose loss is the same.
about = 'FitNets: features, through a 1x1 convolution'
ratio = dict(detection=2.5, segmentation=0.4, classification=2.5)
detection = segmentation = classification = dict(
    features=dict(type='FeatureMatch', taps='<features>', connector=dict(type='Conv1x1'),
                  loss=dict(type='SquaredError')))
