# RetinaNet R18 with RetinaNet R50 as teacher, on VOC0712. The teacher is trained from its stock config first.
_base_ = ['../../voc/retinanet_r18_fpn_1x_voc0712.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmdet::pascal_voc/retinanet_r50_fpn_1x_voc0712.py',
                 checkpoint='work_dirs/retinanet_r50_fpn_1x_voc0712/epoch_4.pth'))
