# Mask R-CNN R50 with Cascade Mask R-CNN X101-32x4d-DCN as teacher, on COCO.
_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_2x_coco.py', '../distill.py']
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmdet::dcn/cascade-mask-rcnn_x101-32x4d-dconv-c3-c5_fpn_1x_coco.py',
                 checkpoint='zoo'))
