# What every distillation needs: a checkpoint that is the student's own, and exact resuming.
custom_hooks = [
    dict(type='mmfeatdistill.StudentCheckpointHook'),
    dict(type='mmfeatdistill.ExactResumeHook'),
]
