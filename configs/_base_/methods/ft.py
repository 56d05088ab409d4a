about = "FT: what an autoencoder makes of the teacher's features"
classification = dict(features=dict(type='FT', taps='<features>'))
