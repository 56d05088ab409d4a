# ResNet-18 on Pascal VOC 2007 with several labels and the teacher ResNet-34.
_base_ = ['../../voc/resnet18-2fc_1xb16_voc07-448px.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='{{fileDirname}}/../../voc/resnet34_1xb16_voc07-448px.py',
                 checkpoint='work_dirs/resnet34_1xb16_voc07-448px/epoch_60.pth'))
