"""The two networks of a distillation, as the names that a user has for them."""
import os.path as osp
import re
from collections.abc import Iterator, Mapping
from glob import glob
from itertools import islice
from typing import Any, NamedTuple, Optional

from mmengine.config import Config
from torch import nn

from mmfeatdistill.distill_config import is_distillation
from mmfeatdistill.distillers.batch_errors import num_classes
from mmfeatdistill.distillers.building import build_student
from mmfeatdistill.engine.work_dir import last_checkpoint
from mmfeatdistill.errors import ConfigError, config_key
from mmfeatdistill.taps.dummy_batch import library_of
from mmfeatdistill.teacher.teacher import Teacher
from mmfeatdistill.zoo.configs import build_model, stock_name, zoo_entries

TASKS = dict(mmdet='detection', mmseg='segmentation', mmpretrain='classification')
"""By the library of a network."""

_KINDS = dict(detection='a detector', segmentation='a segmenter', classification='a classifier')
_TRAINED_CLASSES = dict(mmdet='BaseDetector', mmseg='BaseSegmentor', mmpretrain='BaseClassifier')
"""The base class of the networks that can be distilled; each library has others too, such as trackers."""


class Network(NamedTuple):
    """A student or a teacher.

    Attributes:
        name (str): As the user gave it.
        cfg (Config): Its config.
        model (nn.Module): The network itself.
        task (str): One of :data:`TASKS`.
    """

    name: str
    cfg: Config
    model: nn.Module
    task: str

    @property
    def classes(self) -> Optional[int]:
        """How many classes it has, if a head says it."""
        return num_classes(self.model)

    @property
    def parameters(self) -> int:
        """How many parameters it has."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def stem(self) -> str:
        """The name of its config file."""
        return config_stem(self.cfg)

    def __str__(self) -> str:
        """What people want to know of it."""
        classes = f'{self.classes} classes, ' if self.classes is not None else ''
        size = f'{self.parameters / 1e6:.2f} M parameters'
        return f'{self.name}: {type(self.model).__name__}, {self.task}, {classes}{size}'


def config_stem(cfg: Config) -> str:
    """The name of a config's file, without its ending."""
    return osp.splitext(osp.basename(cfg.filename))[0]


def load_student(name: str, cfg: Config) -> Network:
    """Builds a student.

    Args:
        name (str): What its user calls it.
        cfg (Config): Its config.

    Returns:
        Network: With random weights.

    Raises:
        ConfigError: It is no network that can be a student, or has no training data.
    """
    with config_key('STUDENT'):
        if is_distillation(cfg):
            raise ValueError(f'{name} is a distillation config already: train it with tools/train.py, or give the '
                             'config of its student.')
        _check_data(name, cfg)
        model = build_student(build_model(cfg), None)
    return Network(name, cfg, model, _task('STUDENT', name, model))


def load_teacher(name: str, cfg: Config, checkpoint: Optional[str], student: Network) -> tuple[Network, Teacher]:
    """Builds a teacher and loads its weights.

    Args:
        name (str): What its user calls it: a file, a stock config or the name of a zoo model.
        cfg (Config): Its config.
        checkpoint (str, optional): A path, a URL, ``'zoo'`` or None for random weights.
        student (Network): Its student.

    Returns:
        tuple[Network, Teacher]: What is known of it, and the frozen network.

    Raises:
        ConfigError: It is of another task, or the checkpoint does not fit.
    """
    with config_key('TEACHER'):
        task = TASKS.get(str(cfg.get('default_scope')))
        if task is not None and task != student.task:
            raise ValueError(f'{name} is {_KINDS[task]}, and {student.name} is {_KINDS[student.task]}, so the two '
                             f'learn other things of other images. Give {_KINDS[student.task]}{_examples(student)}.')
    try:
        teacher = Teacher(name, checkpoint=checkpoint, student_preprocessor=student.model.data_preprocessor)
    except ConfigError as error:
        text = str(error).replace('model.teacher.checkpoint', '--teacher-checkpoint')
        raise ConfigError(text.replace('model.teacher', 'TEACHER')) from error
    return Network(name, cfg, teacher.model, _task('TEACHER', name, teacher.model)), teacher


def find_checkpoint(name: str, cfg: Config) -> str:
    """The weights of a teacher whose user gave none.

    Args:
        name (str): Of the teacher.
        cfg (Config): Its config.

    Returns:
        str: ``'zoo'`` for a stock config or the name of a zoo model, else the best or the last checkpoint that
        training the config has left.

    Raises:
        ConfigError: There is none.
    """
    if not osp.isfile(name):
        return 'zoo'
    folder = cfg.get('work_dir') or osp.join('work_dirs', config_stem(cfg))
    best = sorted(glob(osp.join(folder, 'best_*.pth')), key=osp.getmtime)
    if best:
        return best[-1]
    last = last_checkpoint(folder)
    if last is not None:
        return last
    raise ConfigError(f'TEACHER: {name} has no weights: no best_*.pth and no last_checkpoint is in {folder}. Train it '
                      f'first (python tools/train.py {name}), or give --teacher-checkpoint FILE_OR_URL.')


def student_reference(cfg: Config, folder: Optional[str]) -> str:
    """How a config file names the config of its student as a base.

    Args:
        cfg (Config): The student's.
        folder (str, optional): In which the config file will be; None for one that may be anywhere.

    Returns:
        str: Python code.
    """
    stock = stock_name(cfg.filename)
    if stock is None:
        path = osp.abspath(cfg.filename)
        return repr(path if folder is None else osp.relpath(path, folder))
    # mmengine resolves mmseg's under the wrong name, looks up the types of a base of this project in this project, and
    # refuses folders with other than word characters, as mmdet's gn+ws and legacy_1.x.
    is_resolved = re.match(r'(mmdet|mmpretrain)::\w+/', stock) is not None
    return repr(stock) if is_resolved else f"__import__('mmfeatdistill').stock_config({stock!r})"


def teacher_reference(name: str, folder: Optional[str]) -> str:
    """How a config file names the config of its teacher.

    Args:
        name (str): As the user gave it.
        folder (str, optional): In which the config file will be; None for one that may be anywhere.

    Returns:
        str: Python code.
    """
    if not osp.isfile(name):
        return repr(name)
    return repr(osp.abspath(name) if folder is None else '{{fileDirname}}/' + osp.relpath(name, folder))


def warnings(student: Network, teacher: Network) -> Iterator[str]:
    """What may make a teacher a poor one, without making it wrong.

    Args:
        student (Network): The student.
        teacher (Network): The teacher.

    Yields:
        str: A sentence.
    """
    if teacher.parameters <= student.parameters:
        yield (f'the teacher has {teacher.parameters / 1e6:.2f} M parameters and the student '
               f'{student.parameters / 1e6:.2f} M; one that is no larger seldom knows more.')
    own, taught = _published(student), _published(teacher)
    for metric in own.keys() & taught.keys():
        if taught[metric] <= own[metric]:
            yield (f"the teacher's published {metric} is {taught[metric]:g}, that of the student {own[metric]:g}; a "
                   'weaker teacher seldom helps.')
    if None not in (student.classes, teacher.classes) and student.classes != teacher.classes:
        yield (f'the teacher has {teacher.classes} classes and the student {student.classes}, which is fine for '
               'features; logits could not be matched.')


def _task(role: str, name: str, model: nn.Module) -> str:
    library = library_of(model)
    names = {cls.__name__ for cls in type(model).__mro__}
    if library is None or _TRAINED_CLASSES[library] not in names:
        raise ConfigError(f'{role}: {name} is a {type(model).__name__}; expected a detector of mmdet, a segmenter of '
                          'mmseg or a classifier of mmpretrain.')
    return TASKS[library]


def _check_data(name: str, cfg: Config) -> None:
    if not isinstance(cfg.get('train_dataloader'), Mapping) or not cfg.get('train_cfg'):
        raise ValueError(f'{name} has no training data (train_dataloader, train_cfg); give a complete config, such as '
                         "'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', not one of its parts.")


def _examples(student: Network) -> str:
    """Networks of the student's own folder that have weights."""
    stock = stock_name(student.cfg.filename)
    if stock is None:
        return ''
    library, _, path = stock.partition('::')
    folder = osp.dirname(path)
    trained = (entry for entry in zoo_entries(library) if isinstance(entry.weights, str)
               and stock_name(entry.config) not in (None, stock))
    names = dict.fromkeys(str(stock_name(entry.config)) for entry in trained
                          if str(stock_name(entry.config)).startswith(f'{library}::{folder}/'))
    shown = ' or '.join(map(repr, islice(names, 2)))
    return f', such as {shown}' if shown else ''


def _published(network: Network) -> Mapping[str, Any]:
    """The figures of a network's metafile, by data set and metric."""
    stock = stock_name(network.cfg.filename)
    if stock is None:
        return {}
    fitting = [entry for entry in zoo_entries(stock.partition('::')[0])
               if entry.config == osp.abspath(network.cfg.filename)]
    named = [entry for entry in fitting if entry.name in (network.name.rpartition('::')[2], network.stem)]
    return next((entry.metrics for entry in named or fitting), {})
