# RetinaNet R50 whose head has modules of its own for each level, over one set of weights, so that each can be tapped.
# RetinaSepBNHead without BatchNorm computes what RetinaHead does, which calls one set of modules level by level.
_base_ = 'mmdet::pascal_voc/retinanet_r50_fpn_1x_voc0712.py'
model = dict(bbox_head=dict(type='RetinaSepBNHead', num_ins=5))
