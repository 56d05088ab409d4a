"""A student that mimics one or several teachers while it trains."""
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Optional, Union

import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.model import BaseModel, ModuleDict
from torch import Tensor, nn

from mmfeatdistill.distillers.batch_errors import explain_batch_errors
from mmfeatdistill.distillers.building import ADDED, build_objectives, build_student, check_overrides
from mmfeatdistill.distillers.preparing import no_gradient, prepare_objectives
from mmfeatdistill.errors import ConfigError, config_key
from mmfeatdistill.objectives import Objective
from mmfeatdistill.objectives.base import keep_in_graph
from mmfeatdistill.objectives.statistics import needing_statistics
from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.dry_run import probe
from mmfeatdistill.taps.isolation import unset_memory_filled
from mmfeatdistill.taps.reader import Features, TappedPass, TapReader
from mmfeatdistill.taps.uncompiled import uncompiled
from mmfeatdistill.teacher.teacher import build_teachers

_IDLE = 'distiller.idle'
"""Of the losses, the zero that keeps parameters of switched-off objectives in the graph."""

# A module finds its children, parameters and hooks in these dicts. The distiller holds the student's own dicts, not
# copies, so what anybody adds to or replaces in one of the two (SyncBN conversion, LoRA, pruning) is in both.
_SHARED_TABLES = (
    '_modules', '_parameters', '_buffers', '_non_persistent_buffers_set', '_state_dict_hooks',
    '_state_dict_pre_hooks', '_load_state_dict_pre_hooks', '_load_state_dict_post_hooks')


@MODELS.register_module()
class FeatureDistiller(BaseModel):
    """Wears a student: to everything outside it is the student, plus losses while it trains.

    It shares the student's tables of modules, parameters and buffers, so names, optimizer groups, EMA,
    SyncBN conversion and checkpoints are the student's own. What distillation adds is one child,
    ``distiller``, that holds the objectives; :class:`mmfeatdistill.engine.hooks.StudentCheckpointHook` keeps it
    out of saved state dicts. The teachers are not part of the model at all (see
    :class:`mmfeatdistill.teacher.teacher.Teacher`).

    The loss is the student's own plus, for each objective, its losses, logged as
    ``<objective>.loss_<i>``. Outside ``mode='loss'`` nothing is added and no teacher runs.

    Building it draws no random number beyond those of the student alone, so that a student starts from
    the same weights with and without distillation.

    Args:
        student (dict | BaseModel): Any MM model config, untouched.
        teacher (str | dict | list): See :func:`mmfeatdistill.teacher.teacher.build_teachers`.
        objectives (dict[str, dict | None]): Named objectives; None removes one that was inherited.
        data_preprocessor (dict, optional): As the runner passes it on from the top of a config; used
            where the student has none of its own.

    Attributes:
        trains_task (bool): Whether the student's own loss is among those that are trained on.

    Raises:
        ConfigError: Names the config key, what was given and what would do.
    """

    trains_task = True

    def __init__(self, student: Union[dict, BaseModel, None] = None,
                 teacher: Union[str, dict, Sequence, None] = None,
                 objectives: Optional[Mapping[str, Optional[dict]]] = None,
                 data_preprocessor: Union[dict, nn.Module, None] = None, **unknown: Any) -> None:
        if unknown:
            raise ConfigError(f'model: {type(self).__name__} has no {", ".join(map(repr, sorted(unknown)))}; it takes '
                              "'student', 'teacher' and 'objectives'. What belongs to the student goes into "
                              'model.student. What loads a trained student, such as mmseg.apis.init_model, takes '
                              'its own config: <config>_student.py in the work directory.')
        super().__init__()
        MODELS.import_from_location()  # a config that names classes, not strings, has looked nothing up yet
        worn = self._build_student(student, data_preprocessor)
        check_overrides(worn, type(self))
        # Not registered as a child: its children become this module's own.
        self.__dict__.update(student=worn, _checked=set(), teachers=[], reader=None)
        for table in _SHARED_TABLES:
            self.__dict__[table] = worn.__dict__[table]
        with torch.random.fork_rng(devices=[]), unset_memory_filled(worn):
            built = build_objectives(objectives)
            self.teachers = build_teachers(teacher, worn.data_preprocessor)
            self._prepare(built)
            self.add_module(ADDED, _Objectives(built))

    # What distillation adds runs as it is; torch.compile goes on to the student.
    @uncompiled(recursive=False)
    def forward(self, inputs: Tensor, data_samples: Optional[list] = None, mode: str = 'tensor',
                **kwargs: Any) -> Any:
        """Runs the student, and in ``mode='loss'`` the objectives that are on.

        Args:
            inputs (Tensor): As the student takes it.
            data_samples (list, optional): As the student takes it.
            mode (str): ``'loss'``, ``'predict'`` or ``'tensor'``.
            **kwargs: What else the student takes.

        Returns:
            Any: What the student returns; losses of the objectives are added to its dict of losses.
        """
        if mode != 'loss':
            return self.student(inputs, data_samples, mode=mode, **kwargs)
        with self._explained(dict(inputs=inputs, data_samples=data_samples)):
            return self._losses(inputs, data_samples, **kwargs)

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """A training step as any model makes it; says what is wrong with a batch on which it fails."""
        with self._explained(data):
            return super().train_step(data, optim_wrapper)

    def _losses(self, inputs: Tensor, data_samples: Optional[list], **kwargs: Any) -> dict[str, Any]:
        """The student's losses and those of the objectives that are on."""
        active = {name: o for name, o in self.objectives.items() if o.weight != 0}
        if not active:
            losses = self.student(inputs, data_samples, mode='loss', **kwargs)
        else:
            started = self._start_teachers(active, inputs, data_samples)
            features, losses = self._read_student(inputs, data_samples, **kwargs)
            self._add_losses(losses, active, TappedPass(features, self.reader, inputs, data_samples), started)
        if len(active) < len(self.objectives) and get_world_size() > 1:
            self._keep_idle_parameters(losses)
        return losses

    def _read_student(self, inputs: Tensor, data_samples: Optional[list],
                      **kwargs: Any) -> tuple[Features, dict[str, Any]]:
        """The tapped features of a training step, and the student's own losses."""
        return self.reader.read(
            lambda: self.student(inputs, data_samples, mode='loss', **kwargs), size=inputs.shape[-2:])

    def _explained(self, batch: Any) -> AbstractContextManager:
        """Says what is wrong with a batch on which a step fails."""
        return explain_batch_errors(self.student, batch)

    def images_wanted(self) -> dict[str, float]:
        """How many training images objectives have to see before the first iteration, by name; none that needs none."""
        wanted = {name: max((part.images_wanted for part in needing_statistics(objective)), default=0)
                  for name, objective in self.objectives.items()}
        return {name: count for name, count in wanted.items() if count}

    @torch.no_grad()
    def update_statistics(self, inputs: Tensor, data_samples: Optional[list], names: Collection[str]) -> None:
        """Shows a batch to objectives that rest on statistics (see :mod:`mmfeatdistill.objectives.statistics`).

        Args:
            inputs (Tensor): A batch from the data preprocessor, shape (N, C, H, W).
            data_samples (list, optional): Its data samples.
            names (Collection[str]): Those objectives.
        """
        shown = {name: self.objectives[name] for name in names}
        started = self._start_teachers(shown, inputs, data_samples)
        for name, teachers in self._finish_teachers(shown, started).items():
            for part in needing_statistics(shown[name]):
                part.update_statistics(teachers)

    def finish_statistics(self, names: Collection[str]) -> None:
        """Lets objectives conclude, in all processes at once, when they have seen all images that they wanted.

        Args:
            names (Collection[str]): Those objectives.
        """
        for name in names:
            for part in needing_statistics(self.objectives[name]):
                part.finish_statistics()

    @property
    def objectives(self) -> Mapping[str, Objective]:
        """The objectives by name."""
        return self._modules[ADDED].by_name  # type: ignore[union-attr, return-value]

    def init_weights(self) -> None:
        """Initializes the student as it would initialize alone; the connectors do not disturb it."""
        # Out of reach meanwhile: an init_cfg at the top of the student would draw for them too.
        added = self._modules.pop(ADDED)
        try:
            self.student.init_weights()
        finally:
            self._modules[ADDED] = added
        added.init_weights()  # type: ignore[operator, union-attr]

    def train(self, mode: bool = True) -> 'FeatureDistiller':
        """Switches the student as it switches itself."""
        self.training = mode
        self.student.train(mode)
        return self

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        idle = losses.pop(_IDLE, None)
        total, logged = self.student.parse_losses(losses)
        return total if idle is None else total + idle, logged

    def val_step(self, data: Any) -> list:
        return self.student.val_step(data)

    def test_step(self, data: Any) -> list:
        return self.student.test_step(data)

    def __getattr__(self, name: str) -> Any:
        """What this module lacks is asked of the student: hooks and constructors find its methods."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if 'student' not in self.__dict__:
                raise
            return getattr(self.student, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Hooks set options of the student on the runner's model; all but the distiller's own are the student's."""
        is_own = name in self.__dict__ or hasattr(type(self), name) or 'student' not in self.__dict__
        if is_own:
            super().__setattr__(name, value)
        else:
            setattr(self.student, name, value)

    def __delattr__(self, name: str) -> None:
        """What was set on the student is deleted there."""
        is_own = name in self.__dict__ or hasattr(type(self), name) or 'student' not in self.__dict__
        if is_own:
            super().__delattr__(name)
        else:
            delattr(self.student, name)

    def to(self, *args: Any, **kwargs: Any) -> 'FeatureDistiller':
        """Moves the student as it moves itself, and the teachers with it."""
        return self._as_student('to', *args, **kwargs)

    def cuda(self, *args: Any, **kwargs: Any) -> 'FeatureDistiller':
        """Moves the student as it moves itself, and the teachers with it."""
        return self._as_student('cuda', *args, **kwargs)

    def cpu(self, *args: Any, **kwargs: Any) -> 'FeatureDistiller':
        """Moves the student as it moves itself, and the teachers with it."""
        return self._as_student('cpu', *args, **kwargs)

    def _as_student(self, method: str, *args: Any, **kwargs: Any) -> 'FeatureDistiller':
        """Calls one of PyTorch's methods, and the student's own version of it, which may reach what it holds aside."""
        getattr(super(), method)(*args, **kwargs)
        if getattr(type(self.student), method) is not getattr(BaseModel, method):
            getattr(self.student, method)(*args, **kwargs)
        return self

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> 'FeatureDistiller':
        self.student._apply(fn, *args, **kwargs)  # what distillation adds is among its children
        for teacher in self.teachers:
            teacher.apply_to_tensors(fn)
        return self

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any, **kwargs: Any) -> None:
        # Out of reach of load hooks of the student that rename every key, as TimmClassifier's does.
        begin = f'{prefix}{ADDED}.'
        added = {key: state_dict.pop(key) for key in list(state_dict) if key.startswith(begin)}
        self.student._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        state_dict.update(added)

    @uncompiled(recursive=True)
    def _add_losses(self, losses: dict[str, Any], active: Mapping[str, Objective], student: TappedPass,
                    started: Mapping[int, TappedPass]) -> None:
        """Adds the losses of the objectives to the student's own."""
        self._check_first_step(active, student.features, losses)
        targets = self._finish_teachers(active, started)
        for name, objective in active.items():
            with config_key(f'model.objectives.{name}'):
                added = objective(student, targets[name])
            for key, value in added.items():
                losses[f'{name}.{key}'] = value * objective.factor_of(key)

    @uncompiled(recursive=True)
    def _start_teachers(self, objectives: Mapping[str, Objective], inputs: Tensor,
                        data_samples: Optional[list]) -> dict[int, TappedPass]:
        """Starts each teacher once, for all objectives that read it; the readings by teacher."""
        wanted: dict[int, set[str]] = {}
        for objective in objectives.values():
            for index in objective.teachers_read(len(self.teachers)):
                wanted.setdefault(index, set()).update(objective.teacher_taps)
        return {i: self.teachers[i].start(inputs, data_samples, taps) for i, taps in sorted(wanted.items())}

    def _finish_teachers(self, objectives: Mapping[str, Objective],
                         started: Mapping[int, TappedPass]) -> dict[str, list[TappedPass]]:
        """Waits for the teachers; the readings by objective."""
        readings = {index: self.teachers[index].finish(reading) for index, reading in started.items()}
        return {name: [readings[index] for index in objective.teachers_read(len(self.teachers))]
                for name, objective in objectives.items()}

    def _build_student(self, student: Union[dict, BaseModel, None],
                       data_preprocessor: Union[dict, nn.Module, None]) -> BaseModel:
        """The student that this distiller wears."""
        return build_student(student, data_preprocessor)

    def _prepare(self, objectives: Mapping[str, Objective]) -> None:
        """Prepares the objectives; student and teachers are there."""
        prepare_objectives(objectives, self._attach, self.teachers)

    def _attach(self, taps: Sequence[str]) -> TappedPass:
        """Sets what is read of the student, and finds its shapes (see :meth:`Teacher.attach`)."""
        self.reader = TapReader(self.student, taps, owner='student')
        return probe(self.student, self.reader)[0]

    def _check_first_step(self, active: Mapping[str, Objective], features: Features, losses: Mapping) -> None:
        """Finds what only a training step shows: names of losses, and taps through which nothing is learned."""
        if not torch.is_grad_enabled():
            return
        for name, objective in active.items():
            if name in self.__dict__['_checked']:
                continue
            self.__dict__['_checked'].add(name)  # each once, also those that a schedule starts later
            taken = [key for key in losses if key.startswith(f'{name}.')]
            if taken:
                raise ConfigError(f'model.objectives.{name}: the student logs a loss as {taken[0]!r}; take another '
                                  f"name, such as '{name}_match'.")
            taps = dict.fromkeys(pair.student.text for pair in objective.taps)
            dead = [tap for tap in taps if not any(tensor.requires_grad for tensor in features[tap])]
            if not dead:
                continue
            if len(dead) == len(taps):
                raise RuntimeError(no_gradient(name, dead))
            print_log(no_gradient(name, dead), logger='current', level=logging.WARNING)

    def _keep_idle_parameters(self, losses: dict[str, Any]) -> None:
        """Keeps parameters of switched-off objectives in the graph: DDP waits for the gradient of each.

        The zero is an entry of its own, which :meth:`parse_losses` adds to the total: DDP looks for parameters in what
        the forward returns, and no loss of the student has to be chosen to carry it.
        """
        losses[_IDLE] = keep_in_graph(p for o in self.objectives.values() if o.weight == 0 for p in o.parameters())


class _Objectives(ModuleDict):
    """The child that distillation adds.

    ``paramwise_cfg`` finds parameters by substrings of their names. So that what is written for a part of the student
    reaches no connector, objectives are registered by number, whatever their names.

    Args:
        objectives (Mapping[str, Objective]): By name.
    """

    def __init__(self, objectives: Mapping[str, Objective]) -> None:
        super().__init__({str(number): objective for number, objective in enumerate(objectives.values())})
        self._names = dict(zip(objectives, self._modules))

    @property
    def by_name(self) -> dict[str, Objective]:
        return {name: self._modules[key] for name, key in self._names.items()}  # type: ignore[misc]

    def init_weights(self) -> None:
        """Initializes without touching the random state: the student alone would not have drawn."""
        with torch.random.fork_rng(devices=[]):
            super().init_weights()
