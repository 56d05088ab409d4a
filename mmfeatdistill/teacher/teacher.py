"""The teacher: a frozen, verified network that runs only as far as it is read."""
import copy
import inspect
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Optional, Union

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor, nn

from mmfeatdistill.distill_config import network_config, teacher_options, teacher_sources
from mmfeatdistill.errors import ConfigError, config_key, did_you_mean
from mmfeatdistill.registry import check_options, check_values
from mmfeatdistill.taps.dry_run import Entry, probe, run_entry
from mmfeatdistill.taps.isolation import batch_statistics, eval_isolated, random_state_aside
from mmfeatdistill.taps.reader import Features, TappedPass, TapReader
from mmfeatdistill.taps.tracing import tensors_in
from mmfeatdistill.teacher.acceleration import Acceleration, Snapshot, difference
from mmfeatdistill.teacher.automatic_acceleration import (
    AutomaticAcceleration,
    Trial,
    images_shown,
    most_difference,
    timed,
)
from mmfeatdistill.teacher.image_sizes import fitting_multiple, fitting_size
from mmfeatdistill.teacher.initialization import skip_random_init
from mmfeatdistill.teacher.input_size import InputSize
from mmfeatdistill.teacher.input_space import pipeline_space
from mmfeatdistill.teacher.teacher_input import TeacherInput
from mmfeatdistill.teacher.weights import TeacherWeights, resolve_checkpoint
from mmfeatdistill.zoo.configs import build_model, load_config


class Teacher:
    """A frozen network whose features the student mimics.

    It is deliberately no ``nn.Module``: as an attribute of the distiller it is in no ``parameters()``,
    ``state_dict()``, optimizer, EMA copy or DDP bucket. It is in eval mode for good, whoever calls
    ``train()`` on it or on any of its modules.

    Args:
        config (str, optional): A config file, a stock config (``'mmdet::...'``) or the name of a zoo
            model. The network is built in that config's own default scope. A distillation config stands for its
            student.
        model (dict, optional): A model config, in place of ``config``; where it has no
            ``data_preprocessor`` it takes the student's.
        checkpoint (str, optional): A path, a URL, ``'zoo'`` for the weights that the config's own
            metafile names, ``'init_cfg'`` for those that the model's own ``init_cfg`` names, or None for
            random ones, which nothing can be learned from: for tests and timings. Defaults to ``'auto'``:
            ``'zoo'`` for a stock config or zoo model, an error otherwise.
        strict (bool): Whether a checkpoint that lacks some of the model's tensors, or has them in
            another shape, is an error. Defaults to True. One that fits nothing always is.
        batch_statistics (bool): Whether BatchNorm normalizes by the statistics of the batch, as the authors of OFD let
            their teachers do, in place of the running ones; those stay as they were loaded. Defaults to False.
        acceleration (dict | str, optional): What makes it cheaper to run; the options of
            :class:`mmfeatdistill.teacher.acceleration.Acceleration`. Defaults to ``'auto'``: those that leave the
            features what they are up to rounding, chosen in the first iterations of a training (see
            :class:`mmfeatdistill.teacher.automatic_acceleration.AutomaticAcceleration`). None for none.
        weights_only (bool): Whether a checkpoint that holds more than tensors and plain data is refused, as reading the
            rest runs code of the choice of whoever made the file. Defaults to True.
        input (dict, optional): What images the network takes, where its config does not tell it rightly: ``mean`` and
            ``std`` of pixels from 0 to 255, ``channel_order`` (``'rgb'`` or ``'bgr'``) and, if need be, ``pad_value``.
            And at which size it sees them, by the fields of :class:`mmfeatdistill.teacher.input_size.InputSize`, such
            as ``scale=0.5`` or ``multiple_of=14``. Defaults to None: what its data preprocessor and its pipeline make
            of pixels, at the student's size, or at multiples of the patches of a transformer.
        student_input (dict, optional): Likewise what images the student is trained on. Defaults to None: what its data
            preprocessor and the pipeline of ``train_dataloader`` make of pixels.

    Attributes:
        model (nn.Module): The network.
        weights_only (bool): Whether the checkpoint is read as data alone.
        load_report (LoadReport, optional): How the checkpoint fitted.
        input (TeacherInput): What images it takes, and what is made of the student's for it.
        automatic (AutomaticAcceleration, optional): Chooses what makes it cheaper, where that is left to it.

    Raises:
        ConfigError: Neither or both of ``config`` and ``model``, no such config, no checkpoint stated, or
            one that does not fit.
    """

    def __init__(self, config: Optional[str] = None, model: Optional[dict] = None,
                 checkpoint: Optional[str] = 'auto', strict: bool = True, batch_statistics: bool = False,
                 acceleration: Union[str, dict, None] = 'auto', weights_only: bool = True, input: Optional[dict] = None,
                 student_input: Optional[dict] = None, *,
                 student_preprocessor: nn.Module, key: str = 'model.teacher') -> None:
        if (config is None) == (model is None):
            elsewhere = ', '.join(map(repr, teacher_sources()))
            raise ConfigError(f"{key}: give either 'config' (a file, 'mmdet::...', or a zoo name) or 'model' (a dict), "
                              f'or, for a network from elsewhere, one of {elsewhere}; got '
                              f'{"neither" if config is None else "both"}.')
        self._key = key
        self.weights_only = weights_only
        self._batch_statistics = batch_statistics
        self._acceleration = Acceleration.from_config(acceleration, f'{key}.acceleration')
        self.automatic = AutomaticAcceleration() if acceleration == 'auto' else None
        loaded = None
        if config is not None:
            with config_key(f'{key}.config'):
                loaded = load_config(config)
        weights = TeacherWeights(resolve_checkpoint(checkpoint, config, loaded, f'{key}.checkpoint'), strict,
                                 weights_only, f'{key}.checkpoint')
        with config_key(key):
            cfg = network_config(Config(dict(model=model)) if loaded is None else loaded)
        with config_key(key), skip_random_init() if weights.set_all else nullcontext():
            self.model = build_model(cfg, data_preprocessor=copy.deepcopy(student_preprocessor))
        self._weights = weights
        self.load_report = weights.load(self.model, cfg.model)
        self._freeze()
        self.input = TeacherInput(self.model, cfg, input, student_preprocessor, student_input, key)
        self._reader: Optional[TapReader] = None
        self._entry: Entry = 'extract_feat'
        self._probed: tuple[int, ...] = ()
        self._is_shared = False
        self._keeps_size = False

    def attach(self, taps: Sequence[str], owner: str = 'teacher') -> TappedPass:
        """Sets what is read from now on, and finds its shapes by a dry run.

        Args:
            taps (Sequence[str]): See :mod:`mmfeatdistill.taps.reader`.
            owner (str): What the teacher is called in messages.

        Returns:
            TappedPass: The features of one small image.

        Raises:
            ValueError: A tap does not exist or cannot be reached.
        """
        self._weights.check_taps(taps, owner)
        reading, self._entry = self.probe(taps, owner)
        self._reader = reading.reader
        self._probed = tuple(reading.inputs.shape)
        if self._reader.draws:
            print_log(f'{self._key}: it draws random numbers when it predicts, as the decomposition of SegNeXt does, '
                      'so its features may vary from pass to pass. It draws them aside from those of the training.',
                      logger='current', level=logging.WARNING)
        return reading

    def probe(self, taps: Sequence[str], owner: str) -> tuple[TappedPass, Entry]:
        """A dry run with a reader of its own (see :func:`mmfeatdistill.taps.dry_run.probe`).

        Args:
            taps (Sequence[str]): What is read.
            owner (str): What the teacher is called in messages.

        Returns:
            tuple[TappedPass, Entry]: The features of one small image, and how the network is run to get them.
        """
        sides = self.input.size.sides
        reading, entry = probe(self.model, TapReader(self.model, taps, owner), *([sides] if sides else []))
        return replace(reading, scale=self.input.size.pixels), entry

    @property
    def predictions(self) -> set[str]:
        """Taps that give what the network returns, such as the logits of a head."""
        return set() if self._reader is None else self._reader.predictions

    @property
    def classes(self) -> list[str]:
        """The names of its classes, in their order, as far as its checkpoint has them."""
        meta = self.load_report.meta if self.load_report is not None else {}
        return class_names(meta.get('dataset_meta') or meta)

    @property
    def acceleration_difference(self) -> float:
        """By how much the options of ``acceleration`` have changed the features, relative to the largest."""
        return self._acceleration.difference

    @property
    def is_accelerated(self) -> bool:
        """Whether modules of the network do not compute any more what its file says."""
        return self._acceleration.changes_modules

    def keep_size(self, objectives: Collection[str]) -> None:
        """Has the network see the student's images at their own size, for objectives that run modules of it themselves.

        Args:
            objectives (Collection[str]): Their names; with none nothing changes.

        Raises:
            ConfigError: The config states another size, or the network takes one size only.
        """
        if not objectives:
            return
        if self.input.fixes_size:
            raise ConfigError(f'{self._key}.input: changes the size of the images, but model.objectives.'
                              f'{next(iter(objectives))} runs modules of the teacher on features or boxes of the '
                              "student, which would not lie where the teacher's do; only the student's own size is "
                              'possible here.')
        self.input.size = InputSize()
        self._keeps_size = True

    def accelerate(self, reading: TappedPass, runs_elsewhere: Collection[str] = ()) -> None:
        """Applies the options of ``acceleration``, when nothing has to be learned of the network any more.

        Args:
            reading (TappedPass): What :meth:`attach` gave.
            runs_elsewhere (Collection[str]): Objectives that run modules of the network themselves.

        Raises:
            ConfigError: An option does not apply here.
        """
        if self.is_accelerated:
            if runs_elsewhere:
                raise ConfigError(f'{self._key}.acceleration: changes what modules of the teacher compute, but '
                                  f'model.objectives.{next(iter(runs_elsewhere))} runs some of them on its own; only '
                                  'channels_last is possible here.')
            if self._batch_statistics:
                raise ConfigError(f'{self._key}.acceleration: needs the running statistics of BatchNorm, but '
                                  'batch_statistics=True replaces them; only channels_last is possible here.')
        if runs_elsewhere or self._batch_statistics or self._reader is None or self._reader.draws:
            self.automatic = None
        self._small = reading
        self._apply(self._acceleration)

    def _apply(self, acceleration: Acceleration) -> None:
        self._acceleration = acceleration
        with eval_isolated(self.model):
            acceleration.apply(self.model, self._small.reader.taps, self._run_small,
                               lambda: self._read(*self._small_batch()).features)

    def _run_small(self) -> Any:
        """Runs the network on a small image, from end to end."""
        return run_entry(self.model, self._entry, *self._small_batch())

    def _small_batch(self) -> tuple[Any, Any]:
        """The image of the dry run, where the network has been moved since, and in its precision."""
        inputs, samples = self._small.inputs, self._small.data_samples
        weight = self._any_weight()
        if weight is None or not isinstance(inputs, Tensor):
            return inputs, samples
        if weight.device != inputs.device and samples is not None:
            samples = [sample.to(weight.device) if hasattr(sample, 'to') else sample for sample in samples]
        return inputs.to(weight.device, weight.dtype), samples

    def _any_weight(self) -> Optional[Tensor]:
        """One that tells where the network is, and in which precision."""
        return next((weight for weight in self.model.parameters() if weight.is_floating_point()), None)

    def start_training(self, state: Optional[Mapping] = None) -> None:
        """Lets ``acceleration='auto'`` look at the batches from now on; with other options nothing changes.

        Args:
            state (dict, optional): Of ``automatic``, where a training is resumed.
        """
        if self.automatic is not None:
            chosen = self.automatic.start(state)
            weight = self._any_weight()
            if weight is not None and weight.device.type != 'cpu':  # begun on one, it goes on elsewhere
                chosen.pop('packed_for', None)
            if chosen:
                self._apply(Acceleration.from_config(chosen, f'{self._key}.acceleration'))

    def _settle(self, images: Any, data_samples: Optional[Sequence[Any]]) -> None:
        """Packs weights or chooses options, if this batch is the one for it; otherwise it takes no time."""
        options = None if self.automatic is None else self.automatic.look(images)
        if options is not None:
            with eval_isolated(self.model):
                self._try_options(options, images, data_samples)
        elif self._acceleration.packs_for(images):
            with eval_isolated(self.model):
                self._acceleration.pack(self.model, images, len(images), lambda: self._read(images, data_samples))

    def _try_options(self, options: Mapping, images: Tensor, data_samples: Optional[Sequence[Any]]) -> None:
        """Takes options for good if features and times of a batch are as they should be."""
        assert self.automatic is not None
        shown = len(images)

        def read() -> Features:
            return self._read(images[:shown], data_samples[:shown] if data_samples is not None else None).features

        if data_samples is None or len(data_samples) == len(images):  # others are groups, which belong together
            shown = 1
            shown = images_shown(timed(read, images.is_cuda, 0)[1], len(images))
        expected, seconds = timed(read, images.is_cuda)
        plain, before = self._acceleration, Snapshot(self.model)
        self._acceleration = Acceleration.from_config(options, f'{self._key}.acceleration')
        try:
            self._acceleration.change(self.model, self._small.reader.taps, self._run_small)
            if self._acceleration.packs_for(images):
                self._acceleration.pack(self.model, images, shown, read)
            given, faster = timed(read, images.is_cuda)
            self._acceleration.difference = difference(expected, given)
            trial = Trial(self._acceleration.difference, faster / seconds, most_difference(expected))
        except Exception as error:  # noqa: BLE001 - whatever a layer says that cannot run so
            trial = Trial(failure=f'{type(error).__name__}: {error}')
        is_taken = self.automatic.choose(options, trial)
        if not is_taken:
            self._acceleration.undo(self.model, before)
            self._acceleration = plain
        print_log(f'{self._key}.acceleration: {trial.told(options, is_taken)}', logger='current', level=logging.INFO)

    @torch.no_grad()
    def __call__(self, inputs: Tensor, data_samples: Optional[Sequence[Any]],
                 wanted: Optional[Collection[str]] = None) -> TappedPass:
        """Runs up to the last tap that is wanted.

        Args:
            inputs (Tensor): A batch from the student's data preprocessor, shape (N, C, H, W).
            data_samples (Sequence, optional): Its data samples.
            wanted (Collection[str], optional): Some of the taps. Defaults to None: all.

        Returns:
            TappedPass: The tapped tensors, without gradient.
        """
        return self.finish(self.start(inputs, data_samples, wanted))

    @torch.no_grad()
    def start(self, inputs: Tensor, data_samples: Optional[Sequence[Any]],
              wanted: Optional[Collection[str]] = None) -> TappedPass:
        """Queues a pass; on a stream of its own it may still run when this returns.

        Args:
            inputs (Tensor): A batch from the student's data preprocessor, shape (N, C, H, W).
            data_samples (Sequence, optional): Its data samples.
            wanted (Collection[str], optional): Some of the taps. Defaults to None: all.

        Returns:
            TappedPass: For :meth:`finish`; to be looked at after it only.

        Raises:
            ConfigError: An option of ``acceleration`` that this device does not have.
            RuntimeError: The network fails on this batch, though it did not in the dry run; the cause is chained.
        """
        self.input.look_once(inputs, data_samples)
        if isinstance(inputs, Tensor) and inputs.dim() > 4:
            inputs = inputs.flatten(0, -4)  # images in groups, as mmdet's ReID has them
        with self._acceleration.queue(inputs):
            try:
                images = self.input.images(inputs, data_samples)
                self._settle(images, data_samples)
                return self._read(images, data_samples, wanted, inputs.shape[-2:])
            except torch.cuda.OutOfMemoryError:
                raise
            except Exception as error:
                retried = self._at_fitting_size(inputs, data_samples, wanted)
                if retried is not None:
                    return retried
                converted = self.input.convert(inputs, data_samples)
                size = fitting_size(lambda images: self._read(images, data_samples, wanted), converted, self._probed,
                                    self._key)
                raise RuntimeError(
                    f'{self._key}: it fails on a batch of shape {tuple(inputs.shape)} ({type(error).__name__}: '
                    f"{error}). It ran on one of {self._probed} when it was built, and sees the student's images. "
                    f'{size}') from error

    def _at_fitting_size(self, inputs: Tensor, data_samples: Optional[Sequence[Any]],
                         wanted: Optional[Collection[str]]) -> Optional[TappedPass]:
        """Reads a batch on which the network has failed, if sides of some multiple are what it needs.

        Batches that fit already do not change by that, so a training that is resumed sees the same images.
        """
        if self.input.fixes_size:
            return None
        converted = self.input.convert(inputs, data_samples)
        multiple = fitting_multiple(lambda images: self._read(images, data_samples, wanted), converted)
        if multiple is None:
            return None
        if self._keeps_size:
            raise RuntimeError(f'{self._key}: it takes sides that are multiples of {multiple}, unlike those of a batch '
                               f"of shape {tuple(inputs.shape)}: have the student's images padded, by pad_size_divisor="
                               f"{multiple} in its data_preprocessor (size_divisor={multiple} in mmseg's).")
        print_log(f'{self._key}: takes sides that are multiples of {multiple}, unlike those of a batch of shape '
                  f'{tuple(inputs.shape)}; from now on batches are resized for it to the nearest ones, as by '
                  f'input=dict(multiple_of={multiple}).', logger='current', level=logging.WARNING)
        self.input.size = InputSize(multiple_of=multiple)
        return self._read(self.input.images(inputs, data_samples), data_samples, wanted, inputs.shape[-2:])

    def finish(self, reading: TappedPass) -> TappedPass:
        """Lets what follows wait for a pass.

        Args:
            reading (TappedPass): As :meth:`start` gave it.

        Returns:
            TappedPass: The same, ready to be read.
        """
        self._acceleration.join(tensors_in((reading.features, reading.inputs)))
        return reading

    def _read(self, inputs: Tensor, data_samples: Optional[Sequence[Any]],
              wanted: Optional[Collection[str]] = None, given: Optional[Sequence[int]] = None) -> TappedPass:
        """Reads a batch of its own input space; of its own size where the student's has the size ``given``."""
        assert self._reader is not None, 'attach() comes first'
        inputs = self._acceleration.inputs(inputs)
        with batch_statistics(self.model) if self._batch_statistics else nullcontext(), \
                random_state_aside() if self._reader.draws else nullcontext():
            features = self._reader.read_until_complete(
                lambda: run_entry(self.model, self._entry, inputs, data_samples), wanted, inputs.shape[-2:])
        features = self._acceleration.outputs(features)
        if given is not None:
            features = {text: [self.input.size.uncovered(tensor, layout, given)
                               for tensor, layout in zip(tensors, self._reader.layouts[text])]
                        for text, tensors in features.items()}
        return TappedPass(features, self._reader, inputs, data_samples, self.input.size.pixels)

    def apply_to_tensors(self, function: Callable[[Tensor], Tensor]) -> None:
        """Follows the student through ``.to()``, ``.cuda()``, ``.half()`` and the like.

        Args:
            function: What ``nn.Module._apply`` is given.
        """
        if not self._is_shared:
            with self._acceleration.unpacked():
                self.model._apply(function)
            self.input.convert._apply(function)
            self._freeze()  # anew: what LeViT, for one, has prepared for eval mode is no buffer

    def __deepcopy__(self, memo: dict) -> 'Teacher':
        """One network serves all copies: averaged models neither copy it nor move it."""
        shared = copy.copy(self)
        shared._is_shared = True
        return shared

    def _freeze(self) -> None:
        self.model.requires_grad_(False)
        for module in self.model.modules():
            vars(module).pop('train', None)
        self.model.eval()
        for module in self.model.modules():
            module.train = partial(_stay_in_eval, module)  # type: ignore[method-assign]


def build_teachers(cfg: Union[str, Mapping, Sequence, None], student_preprocessor: nn.Module) -> list[Teacher]:
    """Builds the teacher or the teachers of a distiller.

    Args:
        cfg (str | dict | list): A config name, the arguments of :class:`Teacher`, or a list of such. In place of
            ``config`` or ``model`` a dict may name a network of another library, as ``timm='resnet18'`` does, with its
            ``arguments``; ``checkpoint='pretrained'`` then stands for that library's own weights.
        student_preprocessor (nn.Module): The data preprocessor whose batches the teachers will see.

    Returns:
        list[Teacher]: At least one.

    Raises:
        ConfigError: A config of another type, an unknown key, or whatever :class:`Teacher` refuses.
    """
    entries = teacher_options(cfg)
    if not entries:
        raise ConfigError('model.teacher: the list is empty; give at least one teacher.')
    teachers = []
    for key, options in entries.items():
        if not isinstance(options, Mapping):
            raise ConfigError(f'{key}: expected a config name or a dict, got {options!r}.')
        options = {name: value for name, value in options.items() if name != '_scope_'}
        for name in options:
            near = did_you_mean(str(name), teacher_sources())
            if near != '.' and name not in inspect.signature(Teacher).parameters:
                raise ConfigError(f'{key}.{name}: there is no such option{near}')
        check_options(inspect.signature(Teacher), options, key, found=('student_preprocessor', 'key'))
        check_values(inspect.signature(Teacher), options, key)
        teachers.append(Teacher(**options, student_preprocessor=student_preprocessor, key=key))
    return teachers


def follow_pipelines(teachers: Sequence[Teacher], cfg: Mapping) -> None:
    """Tells teachers what the student's pipeline makes of pixels, which the model alone does not show.

    Args:
        teachers (Sequence[Teacher]): Of a distiller.
        cfg (Config): Of its training; without a ``train_dataloader`` nothing changes.

    Raises:
        ConfigError: The pipeline normalizes some images otherwise than others.
    """
    with config_key('train_dataloader.dataset'):
        space = pipeline_space((cfg.get('train_dataloader') or {}).get('dataset'))
    for teacher in teachers:
        teacher.input.follow_pipeline(space)


def class_names(metainfo: Any) -> list[str]:
    """The classes in what a dataset or a checkpoint says of itself.

    Args:
        metainfo (dict): With ``classes``, or ``CLASSES`` as older versions have it.

    Returns:
        list[str]: Empty where there are none.

    Examples:
        >>> class_names(dict(classes=('cat', 'dog')))
        ['cat', 'dog']
    """
    found = (metainfo.get('classes') or metainfo.get('CLASSES')) if isinstance(metainfo, Mapping) else None
    return [str(name) for name in found] if isinstance(found, (list, tuple)) else []


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    """Takes the place of ``train()``: a teacher's Dropout, DropPath and BatchNorm never switch."""
    return module
