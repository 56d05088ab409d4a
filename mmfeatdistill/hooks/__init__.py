"""Hooks: checkpoint layout, schedules, alignment metrics, exact resuming, calibration, checking teachers."""
from mmfeatdistill.hooks.alignment_hook import AlignmentHook
from mmfeatdistill.hooks.calibration_hook import CalibrationHook
from mmfeatdistill.hooks.exact_resume_hook import ExactResumeHook
from mmfeatdistill.hooks.inherit_hook import InheritHook
from mmfeatdistill.hooks.objective_schedule_hook import ObjectiveScheduleHook, schedule_factor
from mmfeatdistill.hooks.student_checkpoint_hook import StudentCheckpointHook
from mmfeatdistill.hooks.teacher_check_hook import TeacherCheckHook

__all__ = ['AlignmentHook', 'CalibrationHook', 'ExactResumeHook', 'InheritHook', 'ObjectiveScheduleHook',
           'StudentCheckpointHook', 'TeacherCheckHook', 'schedule_factor']
