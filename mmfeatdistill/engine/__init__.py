"""Running things: command lines over mmengine's Runner, and resumable experiments."""
from mmfeatdistill.engine.command_line import configure, configure_training, run_arguments, student_config
from mmfeatdistill.engine.experiment import Experiment, Result, read_scalars, run_experiment

__all__ = ['Experiment', 'Result', 'configure', 'configure_training', 'read_scalars', 'run_arguments',
           'run_experiment', 'student_config']
