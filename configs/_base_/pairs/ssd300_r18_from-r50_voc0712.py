# SSD300 R18 with SSD300 R50 as teacher, on VOC0712.
_base_ = '../../voc/ssd300_r18_voc0712.py'
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='{{fileDirname}}/../../voc/ssd300_r50_voc0712.py',
                 checkpoint='work_dirs/ssd300_r50_voc0712/epoch_24.pth'))
