about = 'DKD: logits, the labeled class apart from the others'
ratio = None
classification = dict(logits=dict(type='Decoupled', taps='<logits>', alpha=1.0, beta=1.0, tau=4.0, loss_weight=0.1))
