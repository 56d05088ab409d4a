# RTMDet-tiny with RTMDet-s as teacher, on COCO.
_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
model = dict(
    _delete_=True,
    type='mmfeatdistill.FeatureDistiller',
    student={{_base_.model}},
    teacher=dict(config='mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py',
                 checkpoint='zoo'))
