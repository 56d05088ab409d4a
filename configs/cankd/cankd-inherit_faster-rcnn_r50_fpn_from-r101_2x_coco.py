# The student's neck and box head start from the teacher's.
_base_ = 'cankd_faster-rcnn_r50_fpn_from-r101_2x_coco.py'
custom_hooks = _base_.custom_hooks + [
    dict(type='mmfeatdistill.InheritTeacherWeightsHook', parts=['neck', 'roi_head.bbox_head'])]
