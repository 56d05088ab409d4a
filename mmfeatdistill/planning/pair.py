"""Finding the two networks that a user names, and what is between them."""
import os.path as osp
from typing import NamedTuple, Optional

from mmengine.config import Config

from mmfeatdistill.errors import ConfigError, config_key
from mmfeatdistill.planning.networks import (
    Network,
    find_checkpoint,
    load_student,
    load_teacher,
    student_reference,
    warnings,
)
from mmfeatdistill.planning.own_data import student_text
from mmfeatdistill.planning.wishes import Say, Wishes
from mmfeatdistill.teacher.teacher import Teacher
from mmfeatdistill.zoo.configs import load_config


class Pair(NamedTuple):
    """A student and a teacher, built.

    Attributes:
        student (Network): The student.
        teacher (Network): Its teacher.
        network (Teacher): The teacher as objectives see it.
        checkpoint (str, optional): Its weights.
        stock_classes (int, optional): How many classes the student has without data of one's own.
    """

    student: Network
    teacher: Network
    network: Teacher
    checkpoint: Optional[str]
    stock_classes: Optional[int]


def load_configs(wishes: Wishes) -> tuple[Config, Config]:
    """The configs of the student and the teacher.

    Raises:
        ConfigError: There is no such config.
    """
    with config_key('STUDENT'):
        student = load_config(wishes.student)
    with config_key('TEACHER'):
        return student, load_config(wishes.teacher)


def build_pair(wishes: Wishes, student_cfg: Config, teacher_cfg: Config, folder: str, say: Say) -> Pair:
    """Builds both networks, loads the teacher's weights, and compares what they are.

    Args:
        wishes (Wishes): What was asked for.
        student_cfg (Config): As the user named it.
        teacher_cfg (Config): Likewise.
        folder (str): Where the student's config with data of one's own is put meanwhile.
        say (Callable): Takes what was found.

    Returns:
        Pair: Both.

    Raises:
        ConfigError: They are no pair.
    """
    student = load_student(wishes.student, student_cfg)
    classes = student.classes
    if wishes.data is not None:
        file = osp.join(folder, 'student.py')
        with open(file, 'w') as opened:
            opened.write(student_text('', student_reference(student_cfg, None), student_cfg, wishes.data, classes))
        student = load_student(wishes.student, load_config(file))
    say('student', str(student))
    checkpoint, why = _find_checkpoint(wishes, teacher_cfg)
    teacher, network = load_teacher(wishes.teacher, teacher_cfg, checkpoint, student)
    say('teacher', f'{teacher}; weights: {why}')
    for warning in warnings(student, teacher):
        say('warning', warning)
    return Pair(student, teacher, network, checkpoint, classes)


def _find_checkpoint(wishes: Wishes, cfg: Config) -> tuple[Optional[str], str]:
    """The weights, and why these."""
    if wishes.checkpoint == 'none':
        if not wishes.dry_run:
            raise ConfigError('--teacher-checkpoint: none is for --dry-run and --list-methods; nothing can be learned '
                              'from a random teacher.')
        return None, 'none, so it is random'
    if wishes.checkpoint is not None:
        return wishes.checkpoint, f'{wishes.checkpoint}, as given'
    found = find_checkpoint(wishes.teacher, cfg)
    return found, 'those that its metafile names' if found == 'zoo' else f'{found}, which training its config has left'
