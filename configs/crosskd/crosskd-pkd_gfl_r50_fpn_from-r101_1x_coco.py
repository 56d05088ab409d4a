# CrossKD beside PKD, which the authors combine; the weight of PKD is that of its own paper for one-stage detectors.
_base_ = 'crosskd_gfl_r50_fpn_from-r101_1x_coco.py'
model = dict(
    objectives=dict(
        fpn=dict(type='FeatureMatch', taps=['neck[:4]'],
                 loss=dict(type='Pearson', loss_weight=10))))
