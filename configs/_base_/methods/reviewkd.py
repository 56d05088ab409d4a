# The weight is the authors' for most pairs on COCO and ImageNet.
about = 'ReviewKD: stages or levels, each fused with the deeper ones'
ratio = None
detection = dict(review=dict(type='ReviewKD', taps='<features>', loss_weight=1.0))
classification = dict(review=dict(type='ReviewKD', taps='<preactivations>', loss_weight=1.0))
