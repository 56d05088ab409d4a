about = 'OFD: pre-activations of each stage, or levels of the neck, where the teacher is active'
detection = dict(features=dict(type='OFD', taps='<features>'))
segmentation = classification = dict(stages=dict(type='OFD', taps='<preactivations>'))
