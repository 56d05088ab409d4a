# Mask R-CNN on the digits: the student, distilled by its teacher; what is matched is added by the config that inherits this.
_base_ = ['../../digits/mask-rcnn_r18-w8_fpn_digits.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='{{fileDirname}}/../../digits/mask-rcnn_r18-w32_fpn_digits.py', checkpoint='work_dirs/mask-rcnn_r18-w32_fpn_digits/epoch_6.pth'))
