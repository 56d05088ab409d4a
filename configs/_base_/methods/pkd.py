about = 'PKD: the correlation of features, channel by channel'
ratio = None
detection = dict(features=dict(
    type='FeatureMatch', taps='<features>', connector=dict(type='Conv1x1'), loss=dict(type='Pearson', loss_weight=6.0)))
