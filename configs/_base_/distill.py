# What every distillation needs: a checkpoint that is the student's own, exact resuming, and a look at training images
# for the objectives that ask for one.
custom_hooks = [
    dict(type='mmfeatdistill.StudentCheckpointHook'),
    dict(type='mmfeatdistill.ExactResumeHook'),
    dict(type='mmfeatdistill.StatisticsHook'),
]
