# Positions that count differently, by the teacher's objectness and by the labels, as no shipped config has it.
_base_ = '../../configs/_base_/pairs/faster-rcnn_digits.py'
fpn = dict(type='FeatureMatch', taps=['neck'], connector=dict(type='ChannelMLP'), loss=dict(type='WeightedError'))
model = dict(
    objectives=dict(score=dict(fpn, weight=dict(type='TeacherScore', head='rpn_head')),
                    truth=dict(fpn, weight=dict(type='GroundTruth'))))
