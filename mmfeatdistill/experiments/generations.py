"""Sequential distillation: the student of each generation is the teacher of the next."""
import hashlib
import os.path as osp
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Optional

from mmengine.config import Config

from mmfeatdistill.distill_config import teacher_options
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.experiments.comparison import compare
from mmfeatdistill.experiments.experiment import Experiment
from mmfeatdistill.experiments.report import scale_of
from mmfeatdistill.release.markdown import markdown_table
from mmfeatdistill.zoo.configs import load_config

_TEACHER = 'model.teacher.checkpoint'


class Chain(NamedTuple):
    """The generations of a student.

    Attributes:
        metric (str): By which they are compared, as mmengine logs it.
        generations (dict[int, Experiment]): By number.
    """

    metric: str
    generations: dict[int, Experiment]


class Generation(NamedTuple):
    """What a generation has shown.

    Attributes:
        number (int): 0 is the student alone.
        score (float): Out of 100.
        over_previous (float, optional): Difference to the generation before.
        over_first (float, optional): Difference to the first of the chain.
        seconds (float): Of its training.
        checkpoint (str): Its last checkpoint.
    """

    number: int
    score: float
    over_previous: Optional[float]
    over_first: Optional[float]
    seconds: float
    checkpoint: str


def plan_generations(config: str, count: int, seed: int, out: str, options: Optional[Mapping[str, Any]] = None,
                     first: Optional[str] = None) -> Chain:
    """Plans a chain of trainings of one architecture (FEED, arXiv 1909.10754, the sequential form).

    Generation 0 is the student of the config alone, on the same recipe. Generation k + 1 is trained by the config
    with the last checkpoint of generation k as teacher; nothing else changes from one to the next.

    Args:
        config (str): A distillation config with one teacher, of the student's own architecture.
        count (int): Number of distilled generations.
        seed (int): Of all trainings.
        out (str): Folder of all results; a generation's is ``<out>/seed_<seed>/generation_<k>``.
        options (Mapping, optional): Overrides of the config, as ``--cfg-options`` takes them.
        first (str, optional): A checkpoint that takes the place of generation 0. Defaults to None: it is trained.

    Returns:
        Chain: From generation 0 or, with ``first``, 1 on.

    Raises:
        ConfigError: There are several teachers, or one of another architecture.
        ValueError: The config is no distillation config.
        FileNotFoundError: There is no checkpoint ``first``.
    """
    (comparison,) = compare([config], [seed], out, options)
    distilled = comparison.distilled
    _check_teacher(distilled.config)
    chain: dict[int, Experiment] = {}
    for number in range(0 if first is None else 1, count + 1):
        work_dir = osp.join(out, f'seed_{seed}', f'generation_{number}')
        if number == 0:
            chain[number] = replace(comparison.student, work_dir=work_dir)
        elif chain:
            needs = {**distilled.needs, _TEACHER: chain[number - 1]}
            chain[number] = replace(distilled, work_dir=work_dir, needs=needs)
        else:
            chain[number] = _taught_by_file(distilled, str(first), work_dir)
    return Chain(comparison.metric, chain)


def finished_generations(chain: Chain) -> list[Generation]:
    """What the generations have shown so far.

    Args:
        chain (Chain): As :func:`plan_generations` gives it.

    Returns:
        list[Generation]: Those that are finished.
    """
    found: list[Generation] = []
    for number, experiment in chain.generations.items():
        result = experiment.result()
        if result is None:
            break
        score = scale_of(chain.metric) * result.metrics[chain.metric]
        found.append(Generation(number, score, score - found[-1].score if found else None,
                                score - found[0].score if found else None, result.seconds, result.checkpoint))
    return found


def generations_table(metric: str, generations: Sequence[Generation]) -> str:
    """The generations as a table.

    Args:
        metric (str): Name of the scores.
        generations (Sequence[Generation]): Of one chain.

    Returns:
        str: Markdown.
    """
    rows = [[str(one.number), f'{one.score:.2f}', _gain(one.over_previous), _gain(one.over_first),
             f'{one.seconds:.0f}', one.checkpoint] for one in generations]
    columns = ['generation', metric, 'over the one before', 'over the first', 'training, s', 'checkpoint']
    return markdown_table(columns, rows) + '\n'


def _gain(gain: Optional[float]) -> str:
    return '-' if gain is None else f'{gain:+.2f}'


def _check_teacher(cfg: Any) -> None:
    if isinstance(cfg.model.teacher, (list, tuple)):
        raise ConfigError('model.teacher: a chain of generations has one teacher, got a list of '
                          f'{len(cfg.model.teacher)}.')
    [teacher] = teacher_options(cfg.model.teacher).values()
    theirs = load_config(teacher['config']).model if 'config' in teacher else teacher['model']
    # A student may have its data preprocessor next to it; it is part of no architecture.
    mine, theirs = (Config(dict(model={name: value for name, value in model.items() if name != 'data_preprocessor'}))
                    for model in (cfg.model.student, theirs))
    if mine.to_dict() != theirs.to_dict():
        raise ConfigError(f"model.teacher.config: {teacher.get('config', 'model')!r} is another architecture than "
                          'model.student, and in a chain of generations a student is the next one\'s teacher; give the '
                          "student's own config.")


def _taught_by_file(distilled: Experiment, checkpoint: str, work_dir: str) -> Experiment:
    with open(checkpoint, 'rb') as file:
        content = hashlib.sha256(file.read()).hexdigest()
    return replace(distilled, work_dir=work_dir, options={_TEACHER: checkpoint},
                   needs={key: need for key, need in distilled.needs.items() if key != _TEACHER},
                   depends_on=(*distilled.depends_on, content))
