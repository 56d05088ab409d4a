_base_ = ['../digits/resnet18-w8_digits.py', '../_base_/distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='{{fileDirname}}/../digits/resnet18-w32_digits.py',
                 checkpoint='work_dirs/resnet18-w32_digits/epoch_9.pth'),
    objectives=dict(
        stage4=dict(type='FeatureMatch', taps=['backbone'], connector=dict(type='ChannelMLP'),
                    loss=dict(type='SquaredError', loss_weight=1e-2))))
