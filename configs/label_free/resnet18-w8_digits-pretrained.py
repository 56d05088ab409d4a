# The second stage: the classifier alone, from the backbone that was trained without labels.
_base_ = '../digits/resnet18-w8_digits.py'
checkpoint = 'work_dirs/channel-mlp_resnet18-w8_digits-unlabeled/epoch_5.pth'
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.')))
