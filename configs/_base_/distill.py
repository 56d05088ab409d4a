# What every distillation needs: a checkpoint that is the student's own, exact resuming, a look at training images for
# the objectives that ask for one, cheaper teachers, and a report at the end.
custom_hooks = [
    dict(type='mmfeatdistill.StudentCheckpointHook'),
    dict(type='mmfeatdistill.ExactResumeHook'),
    dict(type='mmfeatdistill.StatisticsHook'),
    dict(type='mmfeatdistill.AccelerationHook'),
    dict(type='mmfeatdistill.ReportHook'),
]
