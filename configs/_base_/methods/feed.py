about = 'FEED: normalized features, through a translator; of several teachers, or generation by generation'
detection = segmentation = classification = dict(
    features=dict(type='FeatureMatch', taps='<features>', connector=dict(type='Translator'),
                  loss=dict(type='FactorTransfer')))
