_base_ = ['../digits/resnet18-w8-2fc_digits.py', '../_base_/distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='{{fileDirname}}/../digits/resnet18-w32_digits.py',
                 checkpoint='work_dirs/resnet18-w32_digits/epoch_9.pth'),
    objectives=dict(
        penultimate=dict(type='LSH', taps=['head.fc:in'], loss_weight=30)))
