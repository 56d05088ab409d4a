"""Planning a distillation: what an expert would decide, said line by line, before anything is written."""
import os.path as osp
import tempfile
import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from mmengine.config import Config

from mmfeatdistill.checks.loss_balance import measure_losses
from mmfeatdistill.checks.preflight import preflight
from mmfeatdistill.engine.command_line import load_distillation
from mmfeatdistill.errors import ConfigError
from mmfeatdistill.planning.config_file import distillation_text
from mmfeatdistill.planning.methods import Fit, Matchmaker, Method, find_method, methods
from mmfeatdistill.planning.networks import config_stem, student_reference, teacher_reference
from mmfeatdistill.planning.own_data import student_text
from mmfeatdistill.planning.pair import Pair, build_pair
from mmfeatdistill.planning.training_data import failed_download, missing_data
from mmfeatdistill.planning.trial_step import trial_step
from mmfeatdistill.planning.weighing import Objectives, given_weights, weigh, with_weights
from mmfeatdistill.planning.wishes import Say, Wishes


class Plan(NamedTuple):
    """A planned distillation.

    Attributes:
        out (str): Where its config goes.
        files (dict[str, str]): What is to be written, by path: the config, and a student's with data of one's own.
    """

    out: str
    files: Mapping[str, str]


def plan(wishes: Wishes, configs: tuple[Config, Config], say: Say) -> Plan:
    """Plans a distillation; nothing is written but temporary files.

    Args:
        wishes (Wishes): What was asked for.
        configs (tuple[Config, Config]): Of the student and the teacher.
        say (Callable): Takes every decision, with its reason.

    Returns:
        Plan: What is to be written.

    Raises:
        ConfigError: It cannot be done; says why, and what would do.
    """
    method = find_method(wishes.method)
    out, student_file = places(wishes, *configs)
    _check_places(out, student_file if wishes.data else out)
    with tempfile.TemporaryDirectory() as folder:
        pair = build_pair(wishes, *configs, folder, say)
        chosen = _choose(wishes, pair, method, say)
        load = partial(_load_draft, wishes, pair, osp.join(folder, 'distillation.py'))
        cfg = load(chosen.objectives)
        missing = _look_at_data(wishes, cfg, say)
        if not missing:
            _check_teacher(wishes, cfg, say)
        objectives, weights = _weigh(wishes, pair, chosen, load, missing)
        say('weight', weights)
        if missing:
            say('trial', 'the distillation is built, and makes a step on random images')
    about = (f'{config_stem(configs[0])} learns from {config_stem(configs[1])} by {chosen.method.about}. Matched: '
             f'{chosen.reason}. Weight: {weights}. Written by tools/distill.py, to be kept and changed.')
    folder, files = osp.dirname(out), {}
    if wishes.data is None:
        base = student_reference(configs[0], folder)
    else:
        base = repr(osp.relpath(student_file, folder))
        files[student_file] = _student_file(wishes, configs[0], pair, osp.dirname(student_file))
    files[out] = distillation_text(textwrap.fill(about, 116), base, teacher_reference(wishes.teacher, folder),
                                   pair.checkpoint, objectives)
    return Plan(out, files)


def _student_file(wishes: Wishes, cfg: Config, pair: Pair, folder: str) -> str:
    assert wishes.data is not None, 'only data of one\'s own need another config of the student'
    about = f'{config_stem(cfg)} on the data below {wishes.data.root}. Written by tools/distill.py.'
    return student_text(about, student_reference(cfg, folder), cfg, wishes.data, pair.stock_classes)


def all_fits(wishes: Wishes, configs: tuple[Config, Config], say: Say) -> list[Fit]:
    """Tries every method on a pair.

    Args:
        wishes (Wishes): What was asked for; weights of the teacher are not needed.
        configs (tuple[Config, Config]): Of the student and the teacher.
        say (Callable): Takes what was found of the pair.

    Returns:
        list[Fit]: One for each method, whether or not it fits.

    Raises:
        ConfigError: They are no pair.
    """
    with tempfile.TemporaryDirectory() as folder:
        pair = build_pair(wishes, *configs, folder, say)
        matchmaker = Matchmaker(pair.student, pair.teacher, pair.network)
        return [matchmaker.fit(method) for method in methods().values()]


def places(wishes: Wishes, student: Config, teacher: Config) -> tuple[str, str]:
    """Where the config goes, and that of the student with data of one's own.

    Args:
        wishes (Wishes): What was asked for.
        student (Config): Of the student.
        teacher (Config): Of the teacher.

    Returns:
        tuple[str, str]: Two paths; the second is of no use without such data.
    """
    method = osp.splitext(osp.basename(wishes.method))[0].replace('_', '-')
    data = '' if wishes.data is None else f'_{osp.basename(osp.abspath(wishes.data.root))}'
    own = config_stem(student) + data
    out = wishes.out or osp.join('configs', 'my', f'{method}_{own}_from-{config_stem(teacher).replace("_", "-")}.py')
    return out, osp.join(osp.dirname(out), f'{own}.py')


def _check_places(*files: str) -> None:
    for file in files:
        if not file.endswith('.py'):
            raise ConfigError(f'--out: expected the name of a config file, such as configs/my/pair.py, got {file!r}.')
        if osp.exists(file):
            raise ConfigError(f'--out: {file} exists, and is not overwritten. Train it (python tools/train.py {file}; '
                              'here with --resume), or give another place.')


def _choose(wishes: Wishes, pair: Pair, method: Method, say: Say) -> Fit:
    matchmaker = Matchmaker(pair.student, pair.teacher, pair.network)
    found = matchmaker.fit(method, wishes.taps)
    if not found.objectives and wishes.taps:
        raise ConfigError(f'--taps: {_sentence(found.reason)}')
    if not found.objectives:
        others = [matchmaker.fit(other) for name, other in methods().items() if name != method.name]
        names = ', '.join(other.method.name for other in others if other.objectives)
        raise ConfigError(f'--method: {method.name} does not fit this pair: {_sentence(found.reason)} '
                          + (f'These do: {names}.' if names else 'Nor does any other; --list-methods says why, and '
                             '--taps gives places.'))
    say('method', f'{method.name} ({method.about})')
    taps = {name: objective['taps'] for name, objective in found.objectives.items() if 'taps' in objective}
    say('taps', f'{", ".join(f"{name}: {value}" for name, value in taps.items()) or "none"}, {found.reason}')
    return found


def _sentence(text: str) -> str:
    return text if text.endswith(('.', '?')) else f'{text}.'


def _load_draft(wishes: Wishes, pair: Pair, file: str, objectives: Objectives) -> Config:
    """The config as it would be, with some objectives."""
    with open(file, 'w') as opened:
        opened.write(distillation_text('', student_reference(pair.student.cfg, None),
                                       teacher_reference(wishes.teacher, None), pair.checkpoint, objectives))
    return load_distillation(file, wishes.cfg_options)


def _look_at_data(wishes: Wishes, cfg: Config, say: Say) -> str:
    """What is missing of the data, which only a dry run can do without."""
    missing = missing_data(cfg) or failed_download(cfg)
    if missing and not wishes.dry_run:
        raise ConfigError(f'STUDENT: {missing}; put the data there, or give your own by --data-root, --train-ann and '
                          '--val-ann.')
    if missing:
        say('data', f'{missing}: this dry run goes on with random images')
    else:
        say('data', 'those of the student' if wishes.data is None else
            f'{wishes.data.root}, {len(wishes.data.classes)} classes; images in '
            + ' and '.join(repr(folder) for folder in wishes.data.images.values()))
    return missing


def _check_teacher(wishes: Wishes, cfg: Config, say: Say) -> None:
    if not wishes.images:
        say('check', 'left out, as --images 0 says')
        return
    found = preflight(cfg, wishes.images)
    wrong = [finding.text for check in found.teachers for finding in check.findings if finding.is_error]
    wrong += [f'{twin.tap}: the student differs from itself there in training; give other --taps.'
              for twin in found.twins if twin.is_error]
    for check in found.teachers:
        for finding in check.findings:
            if not finding.is_error or wishes.checkpoint == 'none':
                say('check', finding.text)
    if wrong and wishes.checkpoint != 'none':
        raise ConfigError(f'TEACHER: {" ".join(wrong)} Here, --images 0 leaves the check out.')


def _weigh(wishes: Wishes, pair: Pair, chosen: Fit, load: Callable[[Objectives], Config],
           missing: str) -> tuple[Objectives, str]:
    """The objectives with their weights, and why these; where data are missing, a step is made on the way."""
    ratio = chosen.method.ratios.get(pair.student.task) if wishes.ratio is None else wishes.ratio
    if wishes.weight is not None:
        weights = given_weights(chosen.objectives, wishes.weight)
        weighed = {weight.key.split('.')[2] for weight in weights}
        for name, objective in chosen.objectives.items():
            if name not in weighed:
                raise ConfigError(f'--weight: {objective["type"]} has no one loss_weight; give --ratio, which keeps '
                                  'how its losses weigh against each other.')
        objectives, said = with_weights(chosen.objectives, weights), f'{wishes.weight:g}, as given'
    elif ratio is None:
        objectives, said = dict(chosen.objectives), 'as published, since they mean the same in every pair'
    elif missing:
        objectives, said = weigh(chosen.objectives, ratio, load, trial_step, iterations=0)
        return objectives, f'{said}, of one step on random images; tools/balance_losses.py measures it on real ones'
    else:
        objectives, said = weigh(chosen.objectives, ratio, load, partial(measure_losses, iterations=2),
                                 wishes.iterations)
        return objectives, f'{said}, as measured over {wishes.iterations} iterations'
    if missing:
        trial_step(load(objectives))
    return objectives, said
