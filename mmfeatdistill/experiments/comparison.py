"""From a distillation config to the experiments that show what it is worth."""
import copy
import os.path as osp
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional

from mmengine.config import Config

from mmfeatdistill.distill_config import check_distillation, is_distillation, student_config, teacher_options
from mmfeatdistill.engine.work_dir import best_metric
from mmfeatdistill.experiments.experiment import Experiment
from mmfeatdistill.zoo.configs import load_config

_RESUME_HOOK = 'mmfeatdistill.ExactResumeHook'
_FROM_TEACHER = re.compile(r'_from-([^_]+)')
_WORK_DIR_CHECKPOINT = re.compile(r'work_dirs/([^/]+)/(?:epoch|iter)_\d+\.pth')


@dataclass(frozen=True)
class Comparison:
    """What is trained for one distillation config with one seed.

    Attributes:
        config (str): The distillation config.
        seed (int): Of the student's trainings.
        student (Experiment): The student alone, on the same recipe.
        teachers (tuple[Experiment, ...]): Those that are trained here.
        distilled (Experiment): The distilled student.
    """

    config: str
    seed: int
    student: Experiment
    teachers: tuple[Experiment, ...]
    distilled: Experiment

    @property
    def experiments(self) -> tuple[Experiment, ...]:
        """All of them, in the order in which a reader thinks of them."""
        return *self.teachers, self.student, self.distilled

    @property
    def student_name(self) -> str:
        """What is left of the config's name after the method."""
        return student_name(self.config)

    @property
    def metric(self) -> str:
        """The metric by which checkpoints of the config are judged, as mmengine logs it.

        Raises:
            ValueError: The config names none.
        """
        assert isinstance(self.distilled.config, Config), 'compare() loads it'
        best = best_metric(self.distilled.config)
        if not isinstance(best, str) or best == 'auto':
            raise ValueError(f'{self.config}: default_hooks.checkpoint.save_best says by which metric trainings are '
                             f"compared, such as 'coco/bbox_mAP'; got {best!r}.")
        return best


def student_name(config: str) -> str:
    """The name of a distillation config's student: the file's name without the method before the first underscore.

    A part ``from-<teacher>`` is left out too, as the student alone has none.

    Args:
        config (str): Config file.

    Returns:
        str: The name.

    Examples:
        >>> student_name('configs/channel_mlp/channel-mlp_resnet18-w8_digits.py')
        'resnet18-w8_digits'
        >>> student_name('configs/mgd/mgd_retinanet_r50_fpn_from-x101_2x_coco.py')
        'retinanet_r50_fpn_2x_coco'
    """
    return _FROM_TEACHER.sub('', _stem(config).partition('_')[2]) or _stem(config)


def method_name(config: str) -> str:
    """What a distillation config's student is taught by: the method, and the teacher where the name has it.

    Args:
        config (str): Config file.

    Returns:
        str: For people.

    Examples:
        >>> method_name('configs/channel_mlp/channel-mlp_resnet18-w8_digits.py')
        'channel-mlp'
        >>> method_name('configs/mgd/mgd_retinanet_r50_fpn_from-x101_2x_coco.py')
        'mgd from x101'
    """
    teacher = _FROM_TEACHER.search(_stem(config))
    return _stem(config).partition('_')[0] + (f' from {teacher[1]}' if teacher else '')


def compare(configs: Iterable[str], seeds: Iterable[int], out: str,
            options: Optional[Mapping[str, Any]] = None) -> list[Comparison]:
    """Plans the comparisons of distillation configs; equal experiments of several of them are one.

    For each config and seed: the student alone on the same recipe (the distillation config with its student as
    model, without the hooks that act on a distillation), the distilled student, and each teacher whose ``config``
    is a local file. Such a teacher is trained from that config with the same seed, in place of the checkpoint
    that the distillation config names; it is left as it is where that is None, a URL, ``'zoo'`` or ``'init_cfg'``.
    Where a list names the same config several times, these teachers are those of the seeds 1, 2, ... whatever the seed
    of the student: an ensemble is trained once.

    Where ``load_from`` names ``work_dirs/<name>/epoch_<n>.pth`` and ``<name>.py`` is next to the config, that stage is
    trained first, with the same seed, and its last checkpoint is loaded.

    Work directories are ``<out>/seed_<seed>/<name>``, with the config's name, or :func:`student_name` for a student
    alone; of different experiments of the same name all but one have a hash appended.

    Args:
        configs (Iterable[str]): Distillation configs.
        seeds (Iterable[int]): Of all trainings.
        out (str): Folder of all results.
        options (Mapping, optional): Overrides of every config, as ``--cfg-options`` takes them.

    Returns:
        list[Comparison]: Seed by seed, config by config.

    Raises:
        ValueError: A config is no distillation config.
    """
    plan = _Plan(out, options or {})
    configs = list(configs)
    comparisons = [plan.comparison(config, seed) for seed in seeds for config in configs]
    plan.give_names()
    return comparisons


class _Plan:
    """The distinct experiments of some comparisons."""

    def __init__(self, out: str, options: Mapping[str, Any]) -> None:
        self._out = out
        self._options = options
        self._configs: dict[str, Config] = {}
        self._trainings: dict[tuple[str, int], Experiment] = {}
        self._distinct: dict[str, Experiment] = {}

    def comparison(self, config: str, seed: int) -> Comparison:
        """The experiments of one config with one seed."""
        check_distillation(self._load(config))
        distilled = self._training(config, seed)
        student = self._experiment(_student_alone(distilled), student_name(config), seed)
        teachers = [need for key, need in distilled.needs.items() if key.startswith('model.teacher')]
        return Comparison(config, seed, student, tuple(dict.fromkeys(teachers)), distilled)

    def give_names(self) -> None:
        """Tells apart different experiments of the same name; one that has results of before keeps its name."""
        namesakes = defaultdict(list)
        for experiment in self._distinct.values():
            namesakes[experiment.work_dir].append(experiment)
        for work_dir, experiments in namesakes.items():
            first = next((e for e in experiments if e.owner() == e.fingerprint), experiments[0])
            for experiment in experiments:
                if experiment is not first:
                    experiment.work_dir = f'{work_dir}-{_hash_without_seed(experiment)}'

    def _training(self, config: str, seed: int) -> Experiment:
        """The training of a config as it is, with the teachers and the stage before it that it needs."""
        if (config, seed) not in self._trainings:
            cfg = self._load(config)
            cfg.merge_from_dict({'randomness.seed': seed})
            needs = self._stage_before(cfg, config, seed)
            if is_distillation(cfg):
                needs.update(self._teachers(cfg, seed))
            self._trainings[config, seed] = self._experiment(cfg, _stem(config), seed, needs)
        return self._trainings[config, seed]

    def _load(self, config: str) -> Config:
        if config not in self._configs:
            cfg = load_config(config)
            cfg.merge_from_dict(copy.deepcopy(dict(self._options)))
            hooks = cfg.get('custom_hooks') or []
            if not any(hook.get('type') == _RESUME_HOOK for hook in hooks):
                cfg.custom_hooks = [*hooks, dict(type=_RESUME_HOOK)]
            self._configs[config] = cfg
        return copy.deepcopy(self._configs[config])

    def _teachers(self, cfg: Config, seed: int) -> dict[str, Experiment]:
        """The trainings of the teachers by config key, which are written out in the config."""
        several = isinstance(cfg.model.teacher, (list, tuple))
        teachers = [dict(teacher) for teacher in teacher_options(cfg.model.teacher).values()]
        trained: dict[str, Experiment] = {}
        here = [index for index, teacher in enumerate(teachers) if _is_trained_here(teacher)]
        for index in here:
            # The same, by whatever way a config refers to it, and without this machine's folders.
            teachers[index].update(config=osp.relpath(teachers[index]['config']), checkpoint=None)
        named = [teachers[index]['config'] for index in here]
        for position, (index, config) in enumerate(zip(here, named)):
            key = f'model.teacher.{index}.checkpoint' if several else 'model.teacher.checkpoint'
            own_seed = 1 + named[:position].count(config) if named.count(config) > 1 else seed
            trained[key] = self._training(config, own_seed)
        cfg.model.teacher = teachers if several else teachers[0]
        return trained

    def _stage_before(self, cfg: Config, config: str, seed: int) -> dict[str, Experiment]:
        """The training whose checkpoint this one starts from, if its config is next to this one's."""
        named = _WORK_DIR_CHECKPOINT.fullmatch(cfg.get('load_from') or '')
        before = named and osp.join(osp.dirname(config), f'{named[1]}.py')
        return {'load_from': self._training(before, seed)} if before and osp.isfile(before) else {}

    def _experiment(self, cfg: Config, name: str, seed: int,
                    needs: Optional[dict[str, Experiment]] = None) -> Experiment:
        experiment = Experiment(cfg, osp.join(self._out, f'seed_{seed}', name), needs=needs or {},
                                depends_on=_data_arguments(cfg))
        return self._distinct.setdefault(experiment.fingerprint, experiment)


def _stem(config: str) -> str:
    return osp.splitext(osp.basename(config))[0]


def _student_alone(distilled: Experiment) -> Config:
    """The recipe of a distillation without the distillation."""
    assert isinstance(distilled.config, Config), 'a plan loads its configs'
    cfg = student_config(distilled.config)
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks
                        if hook['type'] == _RESUME_HOOK or not str(hook['type']).startswith('mmfeatdistill.')]
    if 'load_from' in distilled.needs:
        cfg.load_from = None
    return cfg


def _is_trained_here(teacher: Mapping[str, Any]) -> bool:
    checkpoint = teacher.get('checkpoint', 'auto')
    return (osp.isfile(teacher.get('config') or '') and checkpoint not in (None, 'zoo', 'init_cfg')
            and '://' not in checkpoint)


def _data_arguments(cfg: Config) -> tuple[str, ...]:
    """How the training data were made, where a dataset converter of this project has written that next to them."""
    file = osp.join(cfg.train_dataloader.dataset.get('data_root') or '', 'arguments.json')
    if not osp.isfile(file):
        return ()
    with open(file) as arguments:
        return (arguments.read(),)


def _hash_without_seed(experiment: Experiment) -> str:
    """The same for all seeds, so that folders of different seeds can be told to be alike."""
    return replace(experiment, options={'randomness.seed': None}, needs={}).fingerprint[:6]
