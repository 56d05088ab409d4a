"""Hooks: checkpoint layout, exact resuming, statistics, acceleration, schedules, alignment, checks, reports."""
from mmfeatdistill.engine.hooks.acceleration_hook import AccelerationHook
from mmfeatdistill.engine.hooks.alignment_hook import AlignmentHook
from mmfeatdistill.engine.hooks.balance_hook import BalanceHook, balanced_weight
from mmfeatdistill.engine.hooks.exact_resume_hook import ExactResumeHook
from mmfeatdistill.engine.hooks.inherit_teacher_weights_hook import InheritTeacherWeightsHook
from mmfeatdistill.engine.hooks.objective_schedule_hook import ObjectiveScheduleHook, schedule_factor
from mmfeatdistill.engine.hooks.report_hook import ReportHook
from mmfeatdistill.engine.hooks.statistics_hook import StatisticsHook
from mmfeatdistill.engine.hooks.student_checkpoint_hook import StudentCheckpointHook
from mmfeatdistill.engine.hooks.teacher_check_hook import TeacherCheckHook

__all__ = ['AccelerationHook', 'AlignmentHook', 'BalanceHook', 'ExactResumeHook', 'InheritTeacherWeightsHook',
           'ObjectiveScheduleHook', 'ReportHook', 'StatisticsHook', 'StudentCheckpointHook', 'TeacherCheckHook',
           'balanced_weight', 'schedule_factor']
