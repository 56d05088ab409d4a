about = 'CWD: where each channel is active, of features or logits'
ratio = None
detection = dict(features=dict(
    type='FeatureMatch', taps='<features>', connector=dict(type='Conv1x1'),
    loss=dict(type='ChannelWiseDivergence', tau=1.0, loss_weight=2.0)))
segmentation = dict(logits=dict(
    type='FeatureMatch', taps='<logits>', loss=dict(type='ChannelWiseDivergence', tau=4.0, loss_weight=3.0)))
