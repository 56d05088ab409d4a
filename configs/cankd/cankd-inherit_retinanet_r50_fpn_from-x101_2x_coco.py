# The student's neck and box head start from the teacher's.
_base_ = 'cankd_retinanet_r50_fpn_from-x101_2x_coco.py'
custom_hooks = _base_.custom_hooks + [
    dict(type='mmfeatdistill.InheritTeacherWeightsHook', parts=['neck', 'bbox_head'])]
