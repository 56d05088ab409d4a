"""What a person looks at after a training, left in its work directory."""
import os.path as osp
from typing import Any, Optional

from mmengine.dist import master_only
from mmengine.hooks import Hook

from mmfeatdistill.atomic_files import atomic_write
from mmfeatdistill.engine.stock_student import STUDENT_FILE, readable_text, stock_student
from mmfeatdistill.engine.training_report import Training, read_training, write_report
from mmfeatdistill.errors import config_key
from mmfeatdistill.registry import HOOKS


@HOOKS.register_module()
class ReportHook(Hook):
    """Leaves the config of the student alone, a picture of the training and five lines on what it brought.

    ``<config>_student.py`` is written when the training starts: the checkpoints are the student's own, and this is the
    config by which the MM libraries' commands and inferencers load them, without this project. ``distillation.png`` and
    the lines in the log come at the end, from what was logged: the score, the losses of the objectives over the
    student's own, and the alignment of the features where :class:`AlignmentHook` measures it.

    Args:
        student_alone (str, optional): Work directory of a training of the student alone on the same recipe, to compare
            with. Defaults to None.

    Raises:
        ConfigError: ``student_alone`` holds no logs of a training.
    """

    # After the last checkpoint.
    priority = 'LOWEST'

    def __init__(self, student_alone: Optional[str] = None) -> None:
        self._alone: Optional[Training] = None
        if student_alone is not None:
            with config_key('custom_hooks.ReportHook.student_alone'):
                self._alone = read_training(student_alone)

    @master_only
    def before_train(self, runner: Any) -> None:
        """Writes the config of the student alone."""
        name = osp.splitext(osp.basename(runner.cfg.filename or ''))[0]
        atomic_write(osp.join(runner.work_dir, name + STUDENT_FILE), readable_text(stock_student(runner.cfg)))

    @master_only
    def after_train(self, runner: Any) -> None:
        """Draws the picture and logs the lines."""
        # Else the config logs elsewhere than in mmengine's files, or the runner was built without one.
        if osp.isfile(osp.join(runner.log_dir, 'vis_data', 'config.py')):
            lines = write_report(runner.work_dir, self._alone, runner.cfg)
            runner.logger.info('\n'.join(['The distillation is finished.', *lines]))
