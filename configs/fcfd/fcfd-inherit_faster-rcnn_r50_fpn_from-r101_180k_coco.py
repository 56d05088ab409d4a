# The student's FPN, RPN and RoI head start from the teacher's.
_base_ = 'fcfd_faster-rcnn_r50_fpn_from-r101_180k_coco.py'
custom_hooks = _base_.custom_hooks + [
    dict(type='mmfeatdistill.InheritTeacherWeightsHook', parts=['neck', 'rpn_head', 'roi_head'])]
