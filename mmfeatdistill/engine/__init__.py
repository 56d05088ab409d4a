"""Running things: command lines over mmengine's Runner, and resumable experiments side by side."""
from mmfeatdistill.engine.command_line import (
    at_least,
    configure,
    configure_training,
    key_value,
    load_with_options,
    run_arguments,
    student_config,
)
from mmfeatdistill.engine.comparison import Comparison, compare, is_distillation
from mmfeatdistill.engine.experiment import Experiment, Result, read_scalars
from mmfeatdistill.engine.scheduler import ExperimentsFailed, default_jobs, run_experiments

__all__ = ['Comparison', 'Experiment', 'ExperimentsFailed', 'Result', 'at_least', 'compare', 'configure',
           'configure_training', 'default_jobs', 'is_distillation', 'key_value', 'load_with_options', 'read_scalars',
           'run_arguments', 'run_experiments', 'student_config']
