# The ratios are those at which the weights of the digit configs are, which were chosen by hand.
about = 'Channel MLP: features, through a perceptron over the channels'
ratio = dict(detection=2.5, segmentation=0.4, classification=2.5)
detection = segmentation = classification = dict(
    features=dict(type='FeatureMatch', taps='<features>', connector=dict(type='ChannelMLP'),
                  loss=dict(type='SquaredError')))
