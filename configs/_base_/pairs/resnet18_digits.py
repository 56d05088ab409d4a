# ResNet-18 on the digits: the student, distilled by its teacher; what is matched is added by the config that inherits this.
_base_ = ['../../digits/resnet18-w8_digits.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='{{fileDirname}}/../../digits/resnet18-w32_digits.py', checkpoint='work_dirs/resnet18-w32_digits/epoch_9.pth'))
