# A small GFL with a wider one as teacher, for the method that runs the teacher's dense head; the digits have none.
_base_ = ['mmdet::gfl/gfl_r50_fpn_1x_coco.py', '../../configs/_base_/distill.py']
# Scores begin at a half: mmdet divides by the sum of those of positive anchors, or by 1 where that is less.
head = dict(
    _base_.model.bbox_head, num_classes=10, norm_cfg=dict(type='GN', num_groups=4),
    init_cfg=dict(type='Normal', layer='Conv2d', std=0.01,
                  override=dict(type='Normal', name='gfl_cls', std=0.01, bias_prob=0.5)))
student = dict(
    _scope_='mmdet', type='GFL', data_preprocessor={{_base_.model.data_preprocessor}},
    backbone=dict(type='ResNet', depth=18, stem_channels=8, base_channels=8),
    neck=dict(_base_.model.neck, in_channels=[8, 16, 32, 64], out_channels=16),
    bbox_head=dict(head, in_channels=16, feat_channels=16),
    train_cfg={{_base_.model.train_cfg}}, test_cfg={{_base_.model.test_cfg}})
wider = dict(
    student, neck=dict(student['neck'], out_channels=24), bbox_head=dict(head, in_channels=24, feat_channels=24))
model = dict(
    _delete_=True, type='mmfeatdistill.FeatureDistiller', student=student,
    teacher=dict(model=wider, checkpoint=None),
    objectives=dict(cross=dict(type='CrossHead', taps=['bbox_head.cls_convs.2:each', 'bbox_head.reg_convs.2:each'])))
