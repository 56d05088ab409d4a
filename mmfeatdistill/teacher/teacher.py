"""The teacher: a frozen, verified network that runs only as far as it is read."""
import copy
import inspect
import logging
import os.path as osp
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Optional, Union

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor, nn

from mmfeatdistill.checkpoints.init_cfg import load_init_cfg
from mmfeatdistill.checkpoints.load import LoadReport, load_checkpoint
from mmfeatdistill.checkpoints.load_fit import explain_load
from mmfeatdistill.checkpoints.safe_load import reading_safely
from mmfeatdistill.distill_config import network_config, teacher_options
from mmfeatdistill.errors import ConfigError, config_key
from mmfeatdistill.registry import check_options, check_values
from mmfeatdistill.taps.dry_run import Entry, probe, run_entry
from mmfeatdistill.taps.isolation import batch_statistics, eval_isolated, random_state_aside
from mmfeatdistill.taps.reader import TappedPass, TapReader
from mmfeatdistill.taps.tap import Tap
from mmfeatdistill.taps.tracing import tensors_in
from mmfeatdistill.teacher.acceleration import Acceleration
from mmfeatdistill.teacher.image_sizes import fitting_sides
from mmfeatdistill.teacher.initialization import init_unset_parameters, skip_random_init
from mmfeatdistill.teacher.input_conversion import InputConversion, InputSpace, disagreement
from mmfeatdistill.teacher.input_space import RAW, how_to_state, pipeline_space
from mmfeatdistill.zoo.configs import build_model, load_config, zoo_weights

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')

_CLASSIFIERS = ('fc.', 'head.', 'classifier.')
"""Parts of a backbone that come after what it gives to others."""


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
        acceleration (dict, optional): What makes it cheaper to run; the options of
            :class:`mmfeatdistill.teacher.acceleration.Acceleration`.
        weights_only (bool): Whether a checkpoint that holds more than tensors and plain data is refused, as reading the
            rest runs code of the choice of whoever made the file. Defaults to True.
        input (dict, optional): What images the network takes, where its config does not tell it rightly: ``mean`` and
            ``std`` of pixels from 0 to 255, ``channel_order`` (``'rgb'`` or ``'bgr'``) and, if need be, ``pad_value``.
            Defaults to None: what its data preprocessor and its pipeline make of pixels.
        student_input (dict, optional): Likewise what images the student is trained on. Defaults to None: what its data
            preprocessor and the pipeline of ``train_dataloader`` make of pixels.

    Attributes:
        model (nn.Module): The network.
        weights_only (bool): Whether the checkpoint is read as data alone.
        load_report (LoadReport, optional): How the checkpoint fitted.
        batch_space (InputSpace): What the student's batches are.
        is_input_stated (bool): Whether ``input`` was given.

    Raises:
        ConfigError: Neither or both of ``config`` and ``model``, no such config, no checkpoint stated, or
            one that does not fit.
    """

    def __init__(self, config: Optional[str] = None, model: Optional[dict] = None,
                 checkpoint: Optional[str] = 'auto', strict: bool = True, batch_statistics: bool = False,
                 acceleration: Optional[dict] = None, weights_only: bool = True, input: Optional[dict] = None,
                 student_input: Optional[dict] = None, *,
                 student_preprocessor: nn.Module, key: str = 'model.teacher') -> None:
        if (config is None) == (model is None):
            raise ConfigError(f"{key}: give either 'config' (a file, 'mmdet::...', or a zoo name) or 'model' "
                              f'(a dict), got {"neither" if config is None else "both"}.')
        self._key = key
        self.weights_only = weights_only
        self._batch_statistics = batch_statistics
        self._acceleration = Acceleration.from_config(acceleration, f'{key}.acceleration')
        loaded = None
        if config is not None:
            with config_key(f'{key}.config'):
                loaded = load_config(config)
        checkpoint = _resolve_checkpoint(checkpoint, config, loaded, f'{key}.checkpoint')
        with config_key(key):
            cfg = network_config(Config(dict(model=model)) if loaded is None else loaded)
        self._strict = strict
        is_loaded = strict and checkpoint not in (None, 'init_cfg')
        with config_key(key), skip_random_init() if is_loaded else nullcontext():
            self.model = build_model(cfg, data_preprocessor=copy.deepcopy(student_preprocessor))
        self._random: Collection[str] = ()  # children without weights
        self._looked = False  # at the first batch
        self.load_report = self._load(checkpoint, strict, f'{key}.checkpoint', cfg.model)
        self._freeze()
        self._student_preprocessor = student_preprocessor
        self._student_input = student_input
        self.is_input_stated = input is not None
        self._space = self._find_space(cfg, input)
        self.follow_pipeline(RAW)
        self._reader: Optional[TapReader] = None
        self._entry: Entry = 'extract_feat'
        self._probed: tuple[int, ...] = ()
        self._is_shared = False

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
        for tap in taps if self._random else ():
            if (part := Tap.parse(tap).place.path.partition('.')[0]) in self._random:
                raise ValueError(f"{tap!r} is in {owner}.{part}, of which nothing was loaded: checkpoint='init_cfg' "
                                 f'loads what the model names weights for, and it names none for {part!r}. Tap a part '
                                 'that has weights, give a checkpoint of all, or set strict=False to go on.')
        self._check_leftovers(taps)
        self._reader = TapReader(self.model, taps, owner)
        reading, self._entry = probe(self.model, self._reader)
        self._probed = tuple(reading.inputs.shape)
        if self._reader.draws:
            print_log(f'{self._key}: it draws random numbers when it predicts, as the decomposition of SegNeXt does, '
                      'so its features may vary from pass to pass. It draws them aside from those of the training.',
                      logger='current', level=logging.WARNING)
        return reading

    @property
    def acceleration_difference(self) -> float:
        """By how much the options of ``acceleration`` have changed the features, relative to the largest."""
        return self._acceleration.difference

    @property
    def is_accelerated(self) -> bool:
        """Whether modules of the network do not compute any more what its file says."""
        return self._acceleration.changes_modules

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
        with eval_isolated(self.model):
            self._acceleration.apply(
                self.model, reading.reader.taps,
                lambda: run_entry(self.model, self._entry, reading.inputs, reading.data_samples),
                lambda: self._read(reading.inputs, reading.data_samples).features)

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
        if not self._looked:
            self._looked = True
            self._look(inputs, data_samples)
        if isinstance(inputs, Tensor) and inputs.dim() > 4:
            inputs = inputs.flatten(0, -4)  # images in groups, as mmdet's ReID has them
        with self._acceleration.queue(inputs):
            converted = self.convert(inputs, data_samples)
            try:
                return self._read(converted, data_samples, wanted)
            except torch.cuda.OutOfMemoryError:
                raise
            except Exception as error:
                sides = fitting_sides(lambda images: self._read(images, data_samples, wanted), converted, self._probed)
                raise RuntimeError(
                    f'{self._key}: it fails on a batch of shape {tuple(inputs.shape)} ({type(error).__name__}: '
                    f"{error}). It ran on one of {self._probed} when it was built, and sees the student's images. "
                    f'{sides}') from error

    def finish(self, reading: TappedPass) -> TappedPass:
        """Lets what follows wait for a pass.

        Args:
            reading (TappedPass): As :meth:`start` gave it.

        Returns:
            TappedPass: The same, ready to be read.
        """
        self._acceleration.join(tensors_in((reading.features, reading.inputs)))
        return reading

    def follow_pipeline(self, space: InputSpace) -> None:
        """Converts from what the student's pipeline and its data preprocessor make of pixels together.

        Args:
            space (InputSpace): What the pipeline makes of them (see
                :func:`mmfeatdistill.teacher.input_space.pipeline_space`); without effect where ``student_input`` is
                stated.

        Raises:
            ConfigError: What the student's data preprocessor does is unknown.
        """
        key = f'{self._key}.student_input'
        with config_key(key):
            try:
                own = InputSpace.of(self._student_preprocessor)
            except ValueError as error:
                if self._student_input is None and self._space is not None:
                    raise ValueError(f"the student's {error} {how_to_state(key)}") from error
                own = RAW
            stated = self._student_input
            self.batch_space = own.after(space) if stated is None else InputSpace.stated(stated, own)
        # Where the teacher has no input space of its own it takes whatever the student takes.
        convert = InputConversion(self.batch_space, self.space)
        parameter = next(self.model.parameters(), convert.scale)
        self.convert = convert.to(parameter.device, parameter.dtype)

    @property
    def space(self) -> InputSpace:
        """What the network takes."""
        return self._space or self.batch_space

    @property
    def has_own_input(self) -> bool:
        """Whether its own config, or ``input``, tells what it takes; otherwise it takes what the student does."""
        return self._space is not None

    def _find_space(self, cfg: Config, stated: Optional[dict]) -> Optional[InputSpace]:
        """What the network takes; None where its config does not say it, and it takes what the student does."""
        key = f'{self._key}.input'
        has_own = 'data_preprocessor' in cfg or 'data_preprocessor' in cfg.model
        with config_key(key):
            if stated is not None:
                return InputSpace.stated(stated, RAW)
            try:
                pipeline = pipeline_space(next((cfg[name].get('dataset') for name in _LOADERS if cfg.get(name)), None))
                if not has_own:
                    return None if pipeline.is_raw else pipeline
                own = InputSpace.of(self.model.data_preprocessor)
                if not pipeline.is_raw and not own.is_raw:
                    raise ValueError(f'its pipeline and its data preprocessor both normalize ({pipeline}, and {own}).')
            except ValueError as error:
                raise ValueError(f"the teacher's {error} {how_to_state(key)}") from error
        return own.after(pipeline)

    def _check_leftovers(self, taps: Sequence[str]) -> None:
        """Whether tensors that the network lacks belong to what is tapped, which then computes something else."""
        report = self.load_report
        if report is None or not self._strict:
            return
        for tap in taps:
            path = Tap.parse(tap).place.path
            around = {path[:end] for end, letter in enumerate(f'{path}.') if letter == '.'}
            for name in report.unexpected:
                rest = name.removeprefix(f'{path}.')
                is_inside = rest != name and not rest.startswith(_CLASSIFIERS)
                if is_inside or name.rpartition('.')[0] in around:
                    raise ConfigError(f'{self._key}.checkpoint: {name!r} is left over, which belongs to what {tap!r} '
                                      f'gives in the network of the file ({report.source}), so this one computes '
                                      'something else. Give the checkpoint of this very config, or set strict=False to '
                                      'go on.')

    def _look(self, inputs: Any, data_samples: Optional[Sequence[Any]]) -> None:
        """Looks at the first batch: its values may show that it is not what was concluded."""
        if self._space is None or not isinstance(inputs, Tensor) or inputs.is_meta:
            return
        found = disagreement(inputs, data_samples, self.batch_space)
        if found is not None:
            raise ConfigError(
                f"{self._key}: the student's batches seem to have {self.batch_space}, by which the first one has "
                f'values {found}. Perhaps its pipeline normalizes too, out of sight here. '
                f"{how_to_state(f'{self._key}.student_input')}")

    def _read(self, inputs: Tensor, data_samples: Optional[Sequence[Any]],
              wanted: Optional[Collection[str]] = None) -> TappedPass:
        """Reads a batch of its own input space."""
        assert self._reader is not None, 'attach() comes first'
        inputs = self._acceleration.inputs(inputs)
        with batch_statistics(self.model) if self._batch_statistics else nullcontext(), \
                random_state_aside() if self._reader.draws else nullcontext():
            features = self._reader.read_until_complete(
                lambda: run_entry(self.model, self._entry, inputs, data_samples), wanted, inputs.shape[-2:])
        return TappedPass(self._acceleration.outputs(features), self._reader, inputs, data_samples)

    def apply_to_tensors(self, function: Callable[[Tensor], Tensor]) -> None:
        """Follows the student through ``.to()``, ``.cuda()``, ``.half()`` and the like.

        Args:
            function: What ``nn.Module._apply`` is given.
        """
        if not self._is_shared:
            self.model._apply(function)
            self.convert._apply(function)
            self._freeze()  # anew: what LeViT, for one, has prepared for eval mode is no buffer

    def __deepcopy__(self, memo: dict) -> 'Teacher':
        """One network serves all copies: averaged models neither copy it nor move it."""
        shared = copy.copy(self)
        shared._is_shared = True
        return shared

    def _load(self, checkpoint: Optional[str], strict: bool, key: str, cfg: Mapping) -> Optional[LoadReport]:
        if checkpoint is None:
            print_log(f'{key} is None: the teacher has random weights, and nothing can be learned from it.',
                      logger='current', level=logging.WARNING)
            init_unset_parameters(self.model)
            return None
        if checkpoint == 'init_cfg':
            with config_key(key), reading_safely(self.weights_only):
                report, partly, unloaded, misfits = load_init_cfg(self.model, cfg)
            if misfits and (strict or not report.matched):
                raise ConfigError(f'{key}: {"; ".join(misfits)}.')
            if not report.matched:
                raise ConfigError(f"{key}: is 'init_cfg', but nothing in the model names weights that could be loaded, "
                                  "by an init_cfg of type 'Pretrained' or by pretrained=True. Give a path, a URL or "
                                  "'zoo', or None for a random teacher.")
            if strict and partly:
                raise ConfigError(f"{key}: what init_cfg names fits {', '.join(map(repr, partly))} in part only. "
                                  f'{report}. Give weights of this very network, or set strict=False to go on.')
            self._random = unloaded if strict else ()
            complete = report.complete
        else:
            if not strict:
                init_unset_parameters(self.model)  # which it may lack
            with config_key(key):
                report = load_checkpoint(self.model, checkpoint, self.weights_only)
            if not (report.fits if strict else report.matched):
                going_on = ', or set strict=False to go on with what fits' if report.matched else ''
                raise ConfigError(' '.join([
                    f'{key}: does not fit the teacher. {report}.', *explain_load(report), 'Give the checkpoint of this '
                    f'very config{going_on}.']))
            complete = report.fits and not report.unexpected
        print_log(f'Teacher: {report}', logger='current', level=logging.INFO if complete else logging.WARNING)
        return report

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
        cfg (str | dict | list): A config name, the arguments of :class:`Teacher`, or a list of such.
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
        teacher.follow_pipeline(space)


def _resolve_checkpoint(checkpoint: Optional[str], name: Optional[str], config: Optional[Config],
                        key: str) -> Optional[str]:
    if checkpoint == 'auto':
        if config is None or osp.isfile(str(name)):
            raise ConfigError(f'{key}: is missing; give a path, a URL, or None for a random teacher.')
        checkpoint = 'zoo'
    if checkpoint == 'zoo':
        with config_key(key):
            return zoo_weights(config.filename if config is not None else 'model', name or '')
    if checkpoint is not None and not isinstance(checkpoint, str):
        raise ConfigError(f'{key}: expected a path, a URL, \'zoo\', \'init_cfg\' or None, got {checkpoint!r}.')
    return checkpoint


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    """Takes the place of ``train()``: a teacher's Dropout, DropPath and BatchNorm never switch."""
    return module
