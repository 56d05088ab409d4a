"""Preparing objectives by one dry run of each network, in a distiller or before there is one."""
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from mmfeatdistill.errors import ConfigError, config_key
from mmfeatdistill.objectives import Objective
from mmfeatdistill.taps.dry_run import same_size
from mmfeatdistill.taps.reader import TappedPass
from mmfeatdistill.taps.training_run import Passes, TapDiffersInTraining, check_training, labeled_passes
from mmfeatdistill.teacher.teacher import Teacher

Attach = Callable[[Sequence[str]], TappedPass]
"""Sets what is read of a network, and gives the features of one small image."""


def prepare_objectives(objectives: Mapping[str, Objective], attach_student: Attach,
                       teachers: Sequence[Teacher], passes: Passes = labeled_passes) -> None:
    """Resolves all taps by one dry run of each network, and builds what depends on shapes.

    Args:
        objectives (Mapping[str, Objective]): By name.
        attach_student (Callable): See :data:`Attach`.
        teachers (Sequence[Teacher]): What the objectives may read; each is set to read what they do.
        passes (Callable): How a training step runs the student. Defaults to that with labels.

    Raises:
        ConfigError: A tap cannot be read, features cannot be matched, or no objective reads a teacher.
    """
    read = {}
    for name, objective in objectives.items():
        with config_key(f'model.objectives.{name}'):
            read[name] = objective.teachers_read(len(teachers))
    own = {name: objective.student_taps for name, objective in objectives.items()}
    features = _dry_run(attach_student, own, objectives)
    _check_training(features, objectives, passes)
    targets = []
    for index, teacher in enumerate(teachers):
        owner = 'teacher' if len(teachers) == 1 else f'teacher[{index}]'
        taps = {name: objective.teacher_taps for name, objective in objectives.items() if index in read[name]}
        if not taps:
            raise ConfigError(f'model.{owner}: no objective reads it; remove it, or let an objective have '
                              f'teacher={index}.')
        targets.append(_dry_run(partial(teacher.attach, owner=owner), taps, objectives))
        _check_channels(features, teacher, targets[-1], owner)
    features, *targets = same_size([features, *targets])
    for name, objective in objectives.items():
        objective.prepare(features, [targets[i] for i in read[name]], f'model.objectives.{name}')
    for index, teacher in enumerate(teachers):
        running = [name for name, objective in objectives.items() if objective.runs_teacher and index in read[name]]
        teacher.keep_size(running)
        teacher.accelerate(targets[index], running)


def _check_training(student: TappedPass, objectives: Mapping[str, Objective], passes: Passes) -> None:
    """Compares what the student gives in training with the dry run; an error names the objective that it concerns."""
    taps = {text: name for name, objective in objectives.items() for text in objective.compared_taps}
    try:
        check_training(student, taps, passes)
    except TapDiffersInTraining as error:
        raise ConfigError(f'model.objectives.{taps[error.tap]}.taps: {error}') from None
    for name, objective in objectives.items():
        frozen = [text for text in objective.compared_taps if text in student.reader.frozen]
        if frozen and len(frozen) == len(objective.compared_taps):
            raise ConfigError(no_gradient(name, frozen))


def _check_channels(student: TappedPass, teacher: Teacher, target: TappedPass, owner: str) -> None:
    """Refuses images that the teacher cannot take; those of one channel become as many as it normalizes."""
    given, wanted = teacher.input.convert(student.inputs).shape[1], target.inputs.shape[1]
    if given != wanted:
        raise ConfigError(f'model.{owner}: takes images of {wanted} channel(s), and the student has images of '
                          f'{student.inputs.shape[1]}; give a teacher of such images.')


def no_gradient(name: str, taps: Sequence[str]) -> str:
    """What to say of an objective whose taps of the student no gradient leaves.

    Args:
        name (str): Of the objective.
        taps (Sequence[str]): Its taps.

    Returns:
        str: With the config key.

    Examples:
        >>> no_gradient('stem', ['backbone.layer1'])[:52]
        'model.objectives.stem.taps: no gradient reaches the '
    """
    return (f'model.objectives.{name}.taps: no gradient reaches the student through {", ".join(map(repr, taps))}, as '
            'the student is frozen up to there. Tap a later place, or remove the objective.')


def _dry_run(attach: Attach, taps: Mapping[str, Sequence[str]], objectives: Mapping[str, Objective]) -> TappedPass:
    """Attaches the taps of all objectives at once; an error names the objective that causes it."""
    with config_key('model.objectives'):
        try:
            return attach([tap for of_objective in taps.values() for tap in of_objective])
        except ValueError:
            for name, of_objective in taps.items():
                with config_key(f'model.objectives.{name}.taps'), _networks_named(objectives[name]):
                    attach(of_objective)
            raise


@contextmanager
def _networks_named(objective: Objective) -> Iterator[None]:
    """Says of places that no config names which networks have them."""
    try:
        yield
    except ValueError as error:
        if objective.networks is None:
            raise
        raise ValueError(f'{error} {type(objective).__name__} is for {objective.networks}.') from error
