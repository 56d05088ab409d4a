# FEED on CIFAR-100, generation by generation: the student's own config is the teacher's, of the last generation, see
# tools/generations.py. Network and weight chosen.
_base_ = ['../cifar100/wrn-16-4_1xb128_cifar100.py', '../_base_/distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='{{fileDirname}}/../cifar100/wrn-16-4_1xb128_cifar100.py',
                 checkpoint='work_dirs/wrn-16-4_1xb128_cifar100/epoch_200.pth'),
    objectives=dict(
        stage3=dict(type='FeatureMatch', taps=['backbone'], connector=dict(type='Translator'),
                    loss=dict(type='FactorTransfer', loss_weight=1000))))
