# The authors' weights differ by a factor of 20 and more between one-stage and two-stage detectors. What is kept of them is how
# the four parts weigh against each other.
about = 'FGD: objects, background, attention, and what all positions have in common'
detection = dict(fgd=dict(type='FGD', taps='<features>'))
