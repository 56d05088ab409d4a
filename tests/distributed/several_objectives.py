# Methods side by side that read the same places, as no shipped config has them.
_base_ = '../../configs/_base_/pairs/resnet18_digits.py'
stages = [f'backbone.layer{stage}:pre' for stage in (1, 2, 3, 4)]
model = dict(
    objectives=dict(
        fcfd=dict(type='FCFD', taps=stages, output='head.fc'),
        ofd=dict(type='OFD', taps=stages),
        lsh=dict(type='LSH', taps=['head.fc:in'], connector=dict(type='Conv1x1'), bias='mean'),
        dkd=dict(type='Decoupled', taps=['head.fc']),
        pooled=dict(type='FeatureMatch', taps=['neck'], connector=dict(type='Conv1x1'),
                    loss=dict(type='SquaredError'), standardize='channel')))
