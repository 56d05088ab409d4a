# The student's neck and box head start from the teacher's, the head from the first of the cascade.
_base_ = 'cankd_faster-rcnn_r50_fpn_from-cascade-x101_2x_coco.py'
custom_hooks = _base_.custom_hooks + [
    dict(type='mmfeatdistill.InheritTeacherWeightsHook',
         parts=['neck', dict(student='roi_head.bbox_head', teacher='roi_head.bbox_head.0')])]
