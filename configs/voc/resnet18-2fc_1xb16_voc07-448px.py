# ResNet-18 on Pascal VOC 2007 with several labels, with one more linear layer before the classifier (LSH's "2FC").
_base_ = 'resnet34_1xb16_voc07-448px.py'
model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18')),
    neck=dict(_delete_=True, type='LinearNeck', in_channels=512, out_channels=512, gap_dim=2, norm_cfg=None))
