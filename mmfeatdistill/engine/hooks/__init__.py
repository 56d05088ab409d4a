"""Hooks: checkpoint layout, schedules, alignment metrics, exact resuming, calibration, checking teachers."""
from mmfeatdistill.engine.hooks.alignment_hook import AlignmentHook
from mmfeatdistill.engine.hooks.calibration_hook import CalibrationHook
from mmfeatdistill.engine.hooks.exact_resume_hook import ExactResumeHook
from mmfeatdistill.engine.hooks.inherit_hook import InheritHook
from mmfeatdistill.engine.hooks.objective_schedule_hook import ObjectiveScheduleHook, schedule_factor
from mmfeatdistill.engine.hooks.student_checkpoint_hook import StudentCheckpointHook
from mmfeatdistill.engine.hooks.teacher_check_hook import TeacherCheckHook

__all__ = ['AlignmentHook', 'CalibrationHook', 'ExactResumeHook', 'InheritHook', 'ObjectiveScheduleHook',
           'StudentCheckpointHook', 'TeacherCheckHook', 'schedule_factor']
