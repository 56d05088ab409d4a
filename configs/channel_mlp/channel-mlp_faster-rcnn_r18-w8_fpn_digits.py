_base_ = ['../digits/faster-rcnn_r18-w8_fpn_digits.py', '../_base_/distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='{{fileDirname}}/../digits/faster-rcnn_r18-w32_fpn_digits.py',
                 checkpoint='work_dirs/faster-rcnn_r18-w32_fpn_digits/epoch_7.pth'),
    objectives=dict(
        fpn=dict(type='FeatureMatch', taps=['neck'], connector=dict(type='ChannelMLP'),
                 loss=dict(type='SquaredError', loss_weight=1e-4))))
