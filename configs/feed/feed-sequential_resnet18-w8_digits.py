# The student's own config is the teacher's: of the last generation, see tools/generations.py.
_base_ = ['../digits/resnet18-w8_digits.py', '../_base_/distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='{{fileDirname}}/../digits/resnet18-w8_digits.py',
                 checkpoint='work_dirs/resnet18-w8_digits/epoch_5.pth'),
    objectives=dict(
        stage4=dict(type='FeatureMatch', taps=['backbone'], connector=dict(type='Translator'),
                    loss=dict(type='FactorTransfer', loss_weight=100))))
