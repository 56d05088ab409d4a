# LSHL2 with several labels, second stage: everything learns, from labels and features; weight of the authors' code.
_base_ = 'lsh-stage1_resnet18-2fc_from-resnet34_60e_voc07.py'
load_from = 'work_dirs/lsh-stage1_resnet18-2fc_from-resnet34_60e_voc07/epoch_60.pth'
model = dict(
    student=dict(head=dict(loss=dict(loss_weight=1 / 20))), objectives=dict(penultimate=dict(loss_weight=0.5)))
optim_wrapper = dict(paramwise_cfg=None)
