# LSHL2 with several labels, second stage: everything learns, from labels and features; weight of the authors' code.
_base_ = 'lsh-stage1_mobilenet-v2-2fc_from-resnet101_60e_coco14.py'
load_from = 'work_dirs/lsh-stage1_mobilenet-v2-2fc_from-resnet101_60e_coco14/epoch_60.pth'
model = dict(
    student=dict(head=dict(loss=dict(loss_weight=1 / 80))), objectives=dict(penultimate=dict(loss_weight=3)))
optim_wrapper = dict(paramwise_cfg=None)
