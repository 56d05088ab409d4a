# MobileNetV2 on COCO 2014 with several labels and the teacher ResNet-101.
_base_ = ['../../coco/mobilenet-v2-2fc_1xb32_coco14-448px.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='{{fileDirname}}/../../coco/resnet101_1xb32_coco14-448px.py',
                 checkpoint='work_dirs/resnet101_1xb32_coco14-448px/epoch_60.pth'))
