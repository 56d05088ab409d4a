about = 'LSH: penultimate features, by random half-spaces: of images, pixels or proposals'
ratio = None
detection = dict(regions=dict(type='LSHRoI'))
segmentation = classification = dict(
    penultimate=dict(type='LSH', taps='<penultimate>', connector=dict(type='Conv1x1')))
