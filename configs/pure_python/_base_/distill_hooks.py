# What every distillation needs, as in configs/_base_/distill.py. Add it to the custom_hooks of a student that has some.
from mmfeatdistill.engine.hooks import (
    AccelerationHook,
    ExactResumeHook,
    ReportHook,
    StatisticsHook,
    StudentCheckpointHook,
)

custom_hooks = [
    dict(type=StudentCheckpointHook), dict(type=ExactResumeHook), dict(type=StatisticsHook),
    dict(type=AccelerationHook), dict(type=ReportHook)]
