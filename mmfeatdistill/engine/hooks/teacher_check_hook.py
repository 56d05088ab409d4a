"""A training that does not start with a teacher from which nothing can be learned."""
import logging
from typing import Any

from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.logging import print_log

from mmfeatdistill.checks.teacher_check import check_teachers
from mmfeatdistill.engine.hooks._objectives import unwrap
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.registry import HOOKS

_KEY = 'custom_hooks.TeacherCheckHook'


@HOOKS.register_module()
class TeacherCheckHook(Hook):
    """Evaluates the teachers before the first iteration, and refuses to train with one that is at chance level.

    What is checked and how is said in :func:`mmfeatdistill.checks.teacher_check.check_teachers`. Each process of a
    distributed job runs a share of the images. The training itself goes on as if there had been no check: it draws the
    same batches and random numbers. A resumed training is not checked again, and a student without a teacher has
    nothing to check.

    Args:
        images (int): Validation images. Defaults to 200.
        allow_chance (bool): Whether a teacher at chance level is a warning only. Defaults to False.

    Raises:
        ConfigError: ``images`` is no number of at least 10, or ``allow_chance`` no truth value.
    """

    # Of the hooks that look at a training before it begins, this is soon done.
    priority = 'HIGHEST'

    def __init__(self, images: int = 200, allow_chance: bool = False) -> None:
        if not isinstance(images, int) or images < 10:
            raise ConfigError(f'{_KEY}.images: expected a number of at least 10, got {images!r}.')
        if not isinstance(allow_chance, bool):
            raise ConfigError(f'{_KEY}.allow_chance: expected True or False, got {allow_chance!r}.')
        self.images = images
        self.allow_chance = allow_chance

    def before_train(self, runner: Any) -> None:
        """Checks; weights are loaded and placed by now.

        Raises:
            ConfigError: Something is wrong with a teacher; says what.
        """
        model = unwrap(runner.model)
        if runner.iter > 0 or not getattr(model, 'teachers', ()):
            return
        if not isinstance(runner.cfg.get('model'), ConfigDict):
            raise ConfigError(f'{_KEY}: the runner was not built from a complete config (Runner.from_cfg), which tells '
                              'how the teacher is evaluated; remove the hook, or build it so.')
        wrong = []
        for check in check_teachers(model, runner.cfg, self.images):
            for finding in check.findings:
                if finding.is_error and not (finding.level == 'chance' and self.allow_chance):
                    wrong.append(f'{check.key}: {finding.text}')
                else:
                    level = logging.WARNING if finding.level in ('note', 'chance') else logging.INFO
                    print_log(f'Teacher check, {check.key}: {finding.text}', logger='current', level=level)
        if wrong:
            raise ConfigError('\n'.join(wrong))
