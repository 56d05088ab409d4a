"""What is wrong with the teachers of a distiller, and what is as it should be."""
import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Optional, Union

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

from mmfeatdistill.checkpoints.init_cfg import load_init_cfg
from mmfeatdistill.checkpoints.load import LoadReport, load_checkpoint
from mmfeatdistill.checkpoints.load_fit import explain_load
from mmfeatdistill.checks.evaluation import Predict, Scores, ValidationData, clearly_better
from mmfeatdistill.distill_config import network_config, teacher_options
from mmfeatdistill.distillers import FeatureDistiller
from mmfeatdistill.distillers.batch_errors import num_classes
from mmfeatdistill.errors import ConfigError, config_key
from mmfeatdistill.taps.isolation import random_state_kept
from mmfeatdistill.taps.tap import Tap
from mmfeatdistill.teacher.initialization import init_unset_parameters
from mmfeatdistill.teacher.input_space import RAW, InputSpace, how_to_state, pipeline_space
from mmfeatdistill.teacher.sources.library_network import LibraryNetwork
from mmfeatdistill.teacher.teacher import Teacher, follow_pipelines
from mmfeatdistill.zoo.configs import build_model, has_own_preprocessor, load_config

_GO_ON = ("To train all the same, leave --check-teacher out, or have dict(type='mmfeatdistill.TeacherCheckHook', "
          'allow_chance=True) in custom_hooks.')


_SOME = 8
"""Images of the training that are looked at."""


class Finding(NamedTuple):
    """One thing that was found.

    Attributes:
        level (str): ``'ok'``, ``'note'``, or what is wrong: ``'chance'`` of a teacher at chance level, ``'error'``.
        text (str): For people.
    """

    level: Literal['ok', 'note', 'chance', 'error']
    text: str

    @property
    def is_error(self) -> bool:
        """Whether something is wrong."""
        return self.level in ('chance', 'error')


@dataclass(frozen=True)
class TeacherCheck:
    """What was found about one teacher.

    Attributes:
        key (str): Where it stands in the config.
        findings (tuple[Finding, ...]): In the order in which people read them.
        load_report (LoadReport, optional): How its checkpoint fitted.
        scores (Scores, optional): Of ``'declared'``, ``'swapped'`` and ``'random'``, if it was evaluated: the teacher,
            the teacher with swapped channels in every image, the same network with random weights.
        chance (float, optional): The score that knowing nothing gives.
    """

    key: str
    findings: tuple[Finding, ...]
    load_report: Optional[LoadReport] = None
    scores: Optional[Scores] = None
    chance: Optional[float] = None

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not any(finding.is_error for finding in self.findings)


def check_teachers(distiller: FeatureDistiller, cfg: Config, images: int = 200) -> list[TeacherCheck]:
    """Checks the weights, the classes and the input of each teacher, and what it knows.

    A teacher is evaluated on validation images of the student's config, with the pipeline, the data preprocessor and
    the batch size of its own. It is at chance level if it is not clearly better (see :func:`clearly_better`) than the
    same network with random weights, or, where the metric is an accuracy, than guessing. Its channels are in the wrong
    order if it is clearly better with swapped channels.

    Models, random states and data loaders of a training are as they were afterwards. In a distributed job all processes
    have to call it, and find the same.

    Args:
        distiller (FeatureDistiller): With its teachers, on the device on which they are to run.
        cfg (Config): The entire config that it was built from; the libraries' default scope has to be set.
        images (int): How many validation images. Defaults to 200.

    Returns:
        list[TeacherCheck]: One for each teacher.

    Raises:
        ConfigError: The validation data of the config cannot be read.
    """
    follow_pipelines(distiller.teachers, cfg)
    with random_state_kept():
        return [_Check(distiller, index, cfg).run(images) for index in range(len(distiller.teachers))]


class _Check:
    """The check of one teacher, finding by finding."""

    def __init__(self, distiller: FeatureDistiller, index: int, cfg: Config) -> None:
        self._key, self._entry = list(teacher_options(cfg.model.teacher).items())[index]
        self._cfg = cfg
        self._distiller = distiller
        self._teacher: Teacher = distiller.teachers[index]
        name = self._entry.get('config')
        self._name = name or self._entry['model'].get('name') or f'{self._key}.model'
        self._own = network_config(load_config(name) if name else Config(dict(model=self._entry['model'])))

    def run(self, images: int) -> TeacherCheck:
        """Looks at everything; evaluates only weights that fit."""
        findings = [*self._weights(), *self._classes(), *self._input()]
        scores = chance = None
        # What half-loaded weights score says nothing.
        if not any(finding.level == 'error' for finding in findings):
            data = self._data(images)
            if isinstance(data, str):
                findings.append(Finding('note', f'It could not be evaluated: {data}.'))
            else:
                scores, chance = self._evaluate(data)
                findings += self._judge(scores, chance)
        if self._entry.get('checkpoint', 'auto') is None and not any(f.level == 'chance' for f in findings):
            findings.append(Finding('chance', f'It has random weights. {self._remedy()}'))
        return TeacherCheck(self._key, tuple(findings), self._teacher.load_report, scores, chance)

    def _weights(self) -> Iterator[Finding]:
        report = self._teacher.load_report
        if report is None:
            source = self._entry.get('checkpoint', 'auto')
            yield Finding('note', f'{self._key}.checkpoint is {source!r}: no file was compared with the network.')
        elif report.source == 'init_cfg':
            text = f"{self._key}.checkpoint is 'init_cfg': {report}."
            yield Finding('ok' if report.complete else 'note', text)
        elif report.fits:
            unused = f'; {len(report.unexpected)} in the file are not used' if report.unexpected else ''
            yield Finding('ok', f'All {report.matched} tensors of the network were loaded{unused}.')
        else:
            accepted = not self._entry.get('strict', True)
            text = ' '.join([f'{self._key}.checkpoint: does not fit the teacher. {report}.', *explain_load(report)])
            yield Finding('note' if accepted else 'error', text + (' strict=False accepts that.' if accepted else ''))

    def _classes(self) -> Iterator[Finding]:
        own, taught = num_classes(self._distiller.student), num_classes(self._teacher.model)
        if own is None or taught is None or own == taught:
            return
        objectives = [name for name, objective in self._distiller.objectives.items()
                      if any(_is_logits(self._distiller.student, tap, own) for tap in objective.student_taps)
                      and any(_is_logits(self._teacher.model, tap, taught) for tap in objective.teacher_taps)]
        counts = f'The student has {own} classes and the teacher {taught}'
        for name in objectives:
            yield Finding('error', f'{counts}; model.objectives.{name} compares logits, which stand for other classes. '
                          'Match features instead, such as the neck or the backbone.')
        if not objectives:
            yield Finding('note', f'{counts}. That is fine, as features are matched; logits could not be.')

    def _input(self) -> Iterator[Finding]:
        is_same = self._teacher.input.convert.is_identity
        converted = 'is handed on as it is' if is_same else 'is converted for the teacher'
        yield Finding('ok', f"The student's normalized input {converted}.")
        yield from self._training_input()

    def _training_input(self) -> Iterator[Finding]:
        """Compares what training feeds the teacher with what its own pipeline would."""
        loaders = [self._cfg.get('train_dataloader'), self._cfg.get('val_dataloader'), self._own.get('val_dataloader')]
        if not all(loaders):
            return  # it has no pipeline of its own, or the student no data
        try:
            fed = self._values(self._fed())
            own = self._values(self._expected())
        except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
            yield Finding('note', 'What training feeds it could not be compared with its own pipeline: '
                          f'{type(error).__name__}: {error}')
            return
        figures = (f'In training its input has mean {_listed(fed[0])} and std {_listed(fed[1])}, and from its own '
                   f'pipeline mean {_listed(own[0])} and std {_listed(own[1])}')
        spread = fed[1] / own[1]
        apart = ((fed[0] - own[0]).abs() > 1.5 * own[1]).any() or not ((spread < 3) & (spread > 1 / 3)).all()
        key = f'{self._key}.student_input'
        yield Finding('error' if apart else 'ok', f'{figures}.' + (
            f' So it sees other images than it was trained for. {how_to_state(key)}' if apart else ''))

    def _fed(self) -> torch.Tensor:
        """Some images of the training, as the teacher gets them."""
        inputs, samples = _some(self._cfg.train_dataloader, self._distiller.data_preprocessor, training=True)
        return self._teacher.input.convert(inputs, samples)  # of any size: it is looked at pixel by pixel

    def _expected(self) -> torch.Tensor:
        """Some of the student's validation images, as the teacher's own pipeline and data preprocessor make them."""
        inputs, _ = _some(self._dataloader(), self._teacher.model.data_preprocessor, training=False)
        return inputs

    @staticmethod
    def _values(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values = images.double().cpu().transpose(0, 1).flatten(1)
        return values.mean(1), values.std(1).clamp(min=1e-6)

    def _data(self, images: int) -> Union[ValidationData, str]:
        """The data that the teacher is evaluated on, or why it cannot be."""
        if not self._cfg.get('val_dataloader') or not self._cfg.get('val_evaluator'):
            return 'the config has no val_dataloader and val_evaluator'
        library, wanted = (cfg.get('default_scope') for cfg in (self._own, self._cfg))
        if isinstance(self._teacher.model, LibraryNetwork):
            library = 'mmpretrain' if self._teacher.model.num_classes else 'another library'
            if self._teacher.input.size.size is not None:
                return 'it takes images of one size only'
        if None not in (library, wanted) and library != wanted:
            return f'it is of {library}, and the evaluator of {wanted}'
        if self._teacher.input.is_stated:
            return f'{self._key}.input is stated, and its own data preprocessor, which prediction takes, is not it'
        with config_key('val_dataloader'):
            data = ValidationData(self._dataloader(), self._cfg.val_evaluator, images)
        taught = num_classes(self._teacher.model)
        if taught is not None and data.classes is not None and taught != len(data.classes):
            return f'it has {taught} classes and the validation data {len(data.classes)}'
        return data

    def _dataloader(self) -> dict:
        """The student's validation data with the teacher's own pipeline, if it has one."""
        own = self._own.get('val_dataloader') or {}
        # Images of different sizes make a batch with the pipeline for which that is so.
        taken = {name: own[name] for name in ('batch_size', 'collate_fn') if name in own}
        dataloader = copy.deepcopy(dict(self._cfg.val_dataloader.to_dict(), **taken))
        if 'pipeline' in _innermost(own.get('dataset', {})):
            _innermost(dataloader['dataset'])['pipeline'] = copy.deepcopy(_innermost(own['dataset'])['pipeline'])
        return dataloader

    def _evaluate(self, data: ValidationData) -> tuple[Scores, float]:
        torch.manual_seed(0)
        blank = self._build(pretrained=False).eval()
        init_unset_parameters(blank)
        device = next(self._teacher.model.parameters()).device
        # A data preprocessor follows to(), and not the way that the teacher takes with the student.
        own, random = self._unchanged(blank).to(device), blank.to(device)
        space = self._normalized_before()
        networks: dict[str, Predict] = dict(declared=lambda batch: own.test_step(_undone(batch, space)),
                                            random=lambda batch: random.test_step(_undone(batch, space)),
                                            swapped=lambda batch: own.test_step(_swapped(_undone(batch, space))))
        best = (self._cfg.get('default_hooks', {}).get('checkpoint') or {}).get('save_best')
        scores = data.score(networks, best if isinstance(best, str) else None)
        if len(scores.groups['declared']) < 2:
            raise ConfigError(f'val_dataloader: of {scores.images} images too few have anything to find; check with '
                              'more images.')
        return scores, max(scores.mean('random'), self._guessing(scores.metric))

    def _normalized_before(self) -> InputSpace:
        """What the student's validation pipeline makes of images for a teacher that normalizes them itself."""
        has_pipeline = 'pipeline' in _innermost((self._own.get('val_dataloader') or {}).get('dataset', {}))
        if has_pipeline or not self._teacher.input.is_own:
            return RAW
        with config_key('val_dataloader.dataset'):
            return pipeline_space(self._cfg.val_dataloader.get('dataset'))

    def _unchanged(self, blank: nn.Module) -> nn.Module:
        """The teacher as its file has it: one whose modules were made cheaper may not run from end to end."""
        if not self._teacher.is_accelerated or self._teacher.load_report is None:
            return self._teacher.model
        if self._teacher.load_report.source == 'init_cfg':
            network = self._build(pretrained=True)
            load_init_cfg(network, self._own.model)
        else:
            network = copy.deepcopy(blank)
            load_checkpoint(network, self._teacher.load_report.source, self._teacher.weights_only)
        return network

    def _build(self, pretrained: bool) -> nn.Module:
        """The teacher's network; some libraries give it its weights when it is built."""
        own = copy.deepcopy(self._own)
        if not pretrained and own.model.get('pretrained') is True:
            own.model.pretrained = False
        return build_model(own, data_preprocessor=copy.deepcopy(self._distiller.data_preprocessor))

    def _guessing(self, metric: str) -> float:
        """What guessing gives, in per cent, where the metric is the accuracy of a classifier."""
        taught, top = num_classes(self._teacher.model), metric.rpartition('top')[2]
        return min(100 * int(top) / taught, 100) if 'top' in metric and top.isdigit() and taught else -math.inf

    def _judge(self, scores: Scores, chance: float) -> Iterator[Finding]:
        declared, swapped = scores.groups['declared'], scores.groups['swapped']
        figures = (f'{scores.metric} is {scores.mean("declared"):.4g} on {scores.images} validation images; chance is '
                   f'{chance:.4g}, and swapped channels give {scores.mean("swapped"):.4g}')
        option = 'to_rgb' if hasattr(self._teacher.model.data_preprocessor, 'to_rgb') else 'bgr_to_rgb'
        value = InputSpace.of(self._teacher.model.data_preprocessor).reverses_channels
        if clearly_better(swapped, declared):
            has_own = has_own_preprocessor(self._own, self._teacher.model)
            where = self._name if has_own else "the student's config, as the teacher has none of its own"
            yield Finding('error', f'{figures}. So the channels are in the wrong order: data_preprocessor.{option} is '
                          f'{value} in {where}; it should be {not value}, with mean and std in that order, or the '
                          'checkpoint is of another config.')
        elif not self._knows(scores, chance):
            yield Finding('chance', f'{figures}: it is at chance level on this data. {self._remedy()}')
        else:
            yield Finding('ok', f'{figures}.')

    def _knows(self, scores: Scores, chance: float) -> bool:
        declared = scores.groups['declared']
        guessing = [max(self._guessing(scores.metric), 0.0)] * len(declared)
        return clearly_better(declared, scores.groups['random']) and clearly_better(declared, guessing)

    def _remedy(self) -> str:
        if self._entry.get('checkpoint', 'auto') is None:
            return f'{self._key}.checkpoint is None: give the trained weights of {self._name}. {_GO_ON}'
        return ('Are these the weights of this very config, trained for these classes in this order, and is its test '
                f'pipeline the one that it was trained for? {_GO_ON}')


def _some(dataloader: Mapping, preprocessor: nn.Module, training: bool) -> tuple[torch.Tensor, Any]:
    """A few images of a data set, spread over it, after a data preprocessor."""
    options = {name: value for name, value in dataloader.items() if name not in ('prefetch_factor',)}
    options.pop('num_batch_per_epoch', None)
    loader = Runner.build_dataloader(copy.deepcopy(dict(options, num_workers=0, persistent_workers=False)))
    dataset = loader.dataset
    chosen = torch.linspace(0, len(dataset) - 1, min(_SOME, len(dataset))).long().tolist()
    # One by one, as they may have different sizes in a pipeline for test.
    batches = [chosen] if training else [[index] for index in chosen]
    preprocessor = copy.deepcopy(preprocessor)  # some draw sizes, and keep them
    images: list[torch.Tensor] = []
    samples: list[Any] = []
    for batch in batches:
        data = preprocessor(loader.collate_fn([dataset[index] for index in batch]), training)
        images.append(data['inputs'])
        samples += data['data_samples'] or []
    if not training:  # a grid over all of each image: corners show sky and ground, and no objects
        images = [nn.functional.interpolate(image.float(), size=(64, 64), mode='nearest') for image in images]
    return torch.cat(images), samples


def _listed(values: torch.Tensor) -> str:
    return f'({", ".join(f"{value:.3g}" for value in values.tolist())})'


def _undone(batch: dict, space: InputSpace) -> dict:
    """A batch of images as they are read, from one that its pipeline has normalized."""
    if space.is_raw:
        return batch
    images = [space.pixels(image) for image in batch['inputs']]
    return dict(batch, inputs=[image.flip(0) if space.reverses_channels else image for image in images])


def _swapped(batch: dict) -> dict:
    """A batch with the channels of its raw images reversed."""
    images = batch['inputs']
    if isinstance(images, torch.Tensor):
        return dict(batch, inputs=images.flip(1) if images.shape[1] == 3 else images)
    return dict(batch, inputs=[image.flip(0) if image.shape[0] == 3 else image for image in images])


def _innermost(dataset: Mapping) -> Any:
    """The config of the data set inside wrappers."""
    while 'pipeline' not in dataset and ('dataset' in dataset or 'datasets' in dataset):
        dataset = dataset['dataset'] if 'dataset' in dataset else dataset['datasets'][0]
    return dataset


def _is_logits(model: nn.Module, tap: str, classes: int) -> bool:
    """Whether a tap reads scores of classes: of a classifier, or of a classifying layer of a detector."""
    place = Tap.parse(tap).place
    module = model.get_submodule(place.path)
    width = getattr(module, 'out_features', getattr(module, 'out_channels', None))
    if place.is_input or not isinstance(width, int) or 'head' not in place.path:
        return False
    # One more for the background; several anchors for each position.
    return width in (classes, classes + 1) or ('cls' in place.path.rpartition('.')[2] and width % classes == 0)
