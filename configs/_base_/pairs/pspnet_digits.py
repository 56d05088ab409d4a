# PSPNet on the digits: the student, distilled by its teacher; what is matched is added by the config that inherits this.
_base_ = ['../../digits/pspnet_r18-w8-d8_digits.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='{{fileDirname}}/../../digits/pspnet_r18-w32-d8_digits.py', checkpoint='work_dirs/pspnet_r18-w32-d8_digits/epoch_7.pth'))
