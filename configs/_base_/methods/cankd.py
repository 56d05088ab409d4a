# The weight is the authors' for most of their pairs; the loss is of normalized maps, whose scale is always the same.
about = "CanKD: features, each position with what it finds at all of the teacher's positions"
ratio = None
detection = segmentation = dict(features=dict(
    type='FeatureMatch', taps='<features>', connector=dict(type='CrossAttention'),
    loss=dict(type='InstanceNormError', loss_weight=10.0)))
