"""Looking at a distillation before it is trained: what is loaded, what is matched, what the teachers know."""
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Optional

import torch
from mmengine import registry as root
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmfeatdistill.checks.teacher_check import TeacherCheck, check_teachers
from mmfeatdistill.checks.twin import TwinTap, check_twin
from mmfeatdistill.distill_config import check_distillation, network_config, teacher_options, with_teacher_options
from mmfeatdistill.distillers import FeatureDistiller
from mmfeatdistill.distillers.batch_errors import num_classes
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.objectives import Objective
from mmfeatdistill.objectives.pairs import match_features, run_connector
from mmfeatdistill.taps.dry_run import probe
from mmfeatdistill.taps.feature_map import as_map, same_size
from mmfeatdistill.taps.isolation import eval_isolated
from mmfeatdistill.taps.reader import TappedPass, TapReader
from mmfeatdistill.teacher.input_space import InputSpace
from mmfeatdistill.teacher.weights import MisfitError
from mmfeatdistill.zoo.configs import build_model, load_config


class InputRow(NamedTuple):
    """What the pipeline and the data preprocessor of a network make of raw pixels.

    Attributes:
        network (str): ``'student'`` or the teacher's config key.
        mean (str): Per channel.
        std (str): Per channel.
        order (str): Of the channels, from images that are read as BGR.
        converted (str): Whether the student's input is converted for it.
        classes (int, optional): How many classes it has.
    """

    network: str
    mean: str
    std: str
    order: str
    converted: str
    classes: Optional[int]


class TapRow(NamedTuple):
    """A pair of features, as one small image gives them.

    Attributes:
        objective (str): Its name.
        student (str): Tap and shape.
        teacher (str): Tap and shape.
        connected (str): The student's shape after the connector; ``'-'`` where the objective has none of its own.
        resized (str): The shape in which they are compared.
    """

    objective: str
    student: str
    teacher: str
    connected: str
    resized: str


@dataclass(frozen=True)
class Preflight:
    """What a look at a distillation config has shown.

    Attributes:
        inputs (list[InputRow]): Of the student and of each teacher.
        taps (list[TapRow]): Of all objectives.
        teachers (list[TeacherCheck]): See :func:`mmfeatdistill.checks.teacher_check.check_teachers`.
        twins (list[TwinTap]): The student as its own teacher (see :func:`mmfeatdistill.checks.twin.check_twin`).
    """

    inputs: list[InputRow]
    taps: list[TapRow]
    teachers: list[TeacherCheck]
    twins: list[TwinTap]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return all(check.passed for check in self.teachers) and not any(twin.is_error for twin in self.twins)


def preflight(cfg: Config, images: int = 200) -> Preflight:
    """Builds a distiller, and looks at everything on which the training depends.

    Args:
        cfg (Config): A distillation config.
        images (int): Validation images on which teachers are evaluated. Defaults to 200.

    Returns:
        Preflight: Also where a checkpoint does not fit.

    Raises:
        ConfigError: The distiller cannot be built, for another reason; says the numbers of classes if they differ.
    """
    check_distillation(cfg)
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    distiller = _build(cfg).to(get_device())
    checks = check_teachers(distiller, cfg, images)
    rows = [_input_row('student', distiller.student, distiller.teachers[0].input.batch_space, '-')]
    rows += [_input_row(check.key, teacher.model, teacher.input.space,
                        'no' if teacher.input.convert.is_identity else 'yes')
             for check, teacher in zip(checks, distiller.teachers)]
    compared = dict.fromkeys(tap for objective in distiller.objectives.values() for tap in objective.compared_taps)
    return Preflight(rows, list(_tap_rows(distiller)), checks, check_twin(distiller.student, list(compared)))


def _build(cfg: Config) -> FeatureDistiller:
    model = copy.deepcopy(cfg.model)
    if 'teacher' in model:
        # Teachers whose checkpoints do not fit are built too, and looked at.
        model.teacher = with_teacher_options(model.teacher, strict=False)
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    try:
        return _with_misfits(model)
    except ConfigError as error:
        counts = list(_class_counts(cfg)) if 'model.objectives' in str(error) else []
        if len({count for _, count in counts}) < 2:
            raise
        listed = ', '.join(f'{network} {count}' for network, count in counts)
        raise ConfigError(f'{error} The numbers of classes differ ({listed}): features can be matched all the same, '
                          'logits cannot.') from error


def _class_counts(cfg: Config) -> Iterator[tuple[str, Optional[int]]]:
    """The classes of the student and of each teacher, without their weights."""
    yield 'student', num_classes(build_model(Config(dict(cfg, model=cfg.model.student))))
    for options in teacher_options(cfg.model.teacher).values():
        own = load_config(options['config']) if 'config' in options else Config(dict(cfg, model=options['model']))
        yield 'teacher', num_classes(build_model(network_config(own)))


def _with_misfits(model: ConfigDict) -> FeatureDistiller:
    """A distiller, with random weights in the teachers whose checkpoints fit in nothing, and the reports of these."""
    try:
        return root.MODELS.build(model)
    except MisfitError as error:
        entries = teacher_options(model.teacher)
        key = error.key.removesuffix('.checkpoint')
        entries[key] = dict(entries[key], checkpoint=None)
        teachers = list(entries.values())
        distiller = _with_misfits(ConfigDict(model, teacher=teachers if key.endswith(']') else teachers[0]))
        distiller.teachers[list(entries).index(key)].load_report = error.report
        return distiller


def _input_row(network: str, model: nn.Module, space: InputSpace, converted: str) -> InputRow:
    mean, std = (', '.join(f'{value:g}' for value in values) for values in (space.mean, space.std))
    return InputRow(network, mean, std, 'RGB' if space.reverses_channels else 'BGR', converted, num_classes(model))


@torch.no_grad()
def _tap_rows(distiller: FeatureDistiller) -> Iterator[TapRow]:
    for name, objective in distiller.objectives.items():
        # With readers of their own: those of the distiller stay as they are.
        student, _ = probe(distiller.student, TapReader(distiller.student, objective.student_taps, 'student'))
        teachers = [distiller.teachers[i].probe(objective.teacher_taps, 'teacher')[0]
                    for i in objective.teachers_read(len(distiller.teachers))]
        with eval_isolated(objective):
            yield from _tap_rows_of(name, objective, student, teachers)


def _tap_rows_of(name: str, objective: Objective, student: TappedPass, teachers: list[TappedPass]) -> Iterator[TapRow]:
    # What is not read of the network, such as what its box head makes of proposals, has no shape before training.
    taps = [pair for pair in objective.taps if all(pair.teacher.text in teacher.features for teacher in teachers)]
    connectors = iter(getattr(objective, 'connectors', ()))
    for pair in match_features(taps, student, teachers, f'model.objectives.{name}'):
        own, target = pair.of(student, teachers)
        connector = next(connectors, None)
        connected = resized = None
        if connector is not None:
            connected = run_connector(connector, own, target)
            resized, _ = same_size(connected, as_map(target), pair.has_tokens(own, target))
        yield TapRow(name, f'{pair.student} {_shape(own)}', f'{pair.teacher} {_shape(target)}',
                     _shape(connected), _shape(resized))


def _shape(tensor: Optional[Tensor]) -> str:
    """Without the batch."""
    return '-' if tensor is None else 'x'.join(map(str, tensor.shape[1:]))
