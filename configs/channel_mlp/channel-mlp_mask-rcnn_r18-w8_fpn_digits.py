_base_ = ['../digits/mask-rcnn_r18-w8_fpn_digits.py', '../_base_/distill.py', '../_base_/channel_mlp/fpn.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='{{fileDirname}}/../digits/mask-rcnn_r18-w32_fpn_digits.py',
                 checkpoint='work_dirs/mask-rcnn_r18-w32_fpn_digits/epoch_6.pth'),
    objectives={{_base_.objectives}})
