_base_ = ['../digits/pspnet_r18-w8-d8_digits.py', '../_base_/distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='{{fileDirname}}/../digits/pspnet_r18-w32-d8_digits.py',
                 checkpoint='work_dirs/pspnet_r18-w32-d8_digits/epoch_7.pth'),
    objectives=dict(
        stage4=dict(type='FeatureMatch', taps=['backbone[-1]'], connector=dict(type='ChannelMLP'),
                    loss=dict(type='SquaredError', loss_weight=1e-4))))
