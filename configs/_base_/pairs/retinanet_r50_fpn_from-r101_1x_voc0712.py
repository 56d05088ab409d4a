# RetinaNet R50 with RetinaNet R101 as teacher, on VOC0712.
_base_ = ['mmdet::pascal_voc/retinanet_r50_fpn_1x_voc0712.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='{{fileDirname}}/../../voc/retinanet_r101_fpn_1x_voc0712.py',
                 checkpoint='work_dirs/retinanet_r101_fpn_1x_voc0712/epoch_4.pth'))
