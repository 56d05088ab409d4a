# The ratios are those of Channel MLP, whose loss is the same.
about = "MGD: the teacher's features, generated from the student's with parts of them hidden"
ratio = dict(detection=2.5, segmentation=0.4, classification=2.5)
detection = dict(features=dict(
    type='FeatureMatch', taps='<features>', connector=dict(type='MaskedGenerator', mask_ratio=0.65),
    loss=dict(type='SquaredError')))
segmentation = dict(features=dict(
    type='FeatureMatch', taps='<features>', connector=dict(type='MaskedGenerator', mask_ratio=0.75),
    loss=dict(type='SquaredError')))
classification = dict(features=dict(
    type='FeatureMatch', taps='<features>', connector=dict(type='MaskedGenerator', mask_ratio=0.15, hide='channels'),
    loss=dict(type='SquaredError')))
