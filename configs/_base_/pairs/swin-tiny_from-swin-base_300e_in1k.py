# Swin-T on ImageNet with the teacher Swin-B.
_base_ = ['mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmpretrain::swin_transformer/swin-base_16xb64_in1k.py', checkpoint='zoo'))
