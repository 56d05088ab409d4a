about = "target-aware: levels, where the queries of the teacher's decoder find objects"
ratio = None
detection = dict(target_aware=dict(type='TargetAware', taps='<features>'))
