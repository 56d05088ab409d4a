# Every FPN level of a detector, through a perceptron over its channels.
objectives = dict(
    fpn=dict(type='FeatureMatch', taps=['neck'], connector=dict(type='ChannelMLP'),
             loss=dict(type='SquaredError', loss_weight=1e-4)))
