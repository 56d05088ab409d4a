# The second stage: a detector alone, from the backbone that was trained without labels.
_base_ = '../digits/faster-rcnn_r18-w8_fpn_digits.py'
checkpoint = 'work_dirs/channel-mlp_resnet18-w8_digits-unlabeled/epoch_5.pth'
init_cfg = dict(_delete_=True, type='Pretrained', checkpoint=checkpoint, prefix='backbone.')
model = dict(backbone=dict(init_cfg=init_cfg))
