"""Running the later part of a network from a given feature, without running the earlier part."""
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from mmfeatdistill.taps.dry_run import run_entry, trace
from mmfeatdistill.taps.isolation import eval_isolated
from mmfeatdistill.taps.reader import Features, TappedPass
from mmfeatdistill.taps.tap import Tap
from mmfeatdistill.taps.tracing import Call, closing_activation


class Tail:
    """What a network does after one of its stages.

    The network's own ``forward`` runs, but in the place of the stage stands the given feature, and in the places of
    all that ran before it stands what hands its input on. So any network that passes from stage to stage by calling
    modules can be continued, without a line about its architecture. One that needs more than this stage's output later
    on, as a decode head on several stages does, cannot; that is found when it is built.

    It holds names only, no module, so it can be copied and moved freely.

    Args:
        stage (Tap): The stage, as ``'backbone.layer2'``, or ``'backbone.layer2:pre'`` to be continued from in front of
            its last activation.
        reading (TappedPass): The dry run of the network.
        calls (Sequence[Call]): A trace of it.
        wanted (Collection[str]): What will be read after the stage.

    Raises:
        ValueError: The later part cannot be run from this stage alone.
    """

    def __init__(self, stage: Tap, reading: TappedPass, calls: Sequence[Call], wanted: Collection[str]) -> None:
        self.stage = stage.place.path
        self._activation = closing_activation(calls, self.stage) if stage.is_pre else None
        self._earlier = _calls_before(calls, self.stage)
        self._check(reading, stage.text, wanted)

    def run(self, reading: TappedPass, feature: Tensor, wanted: Collection[str]) -> Features:
        """Runs the later part, with gradient where it is on.

        Args:
            reading (TappedPass): A pass of the network, for its batch.
            feature (Tensor): In place of the stage's output, or of what goes into its last activation.
            wanted (Collection[str]): Taps after the stage, some of those that ``reading`` has.

        Returns:
            Features: The tapped tensors.
        """
        with self._entered_with(reading.model, feature):
            return reading.reader.read_until_complete(
                lambda: run_entry(reading.model, 'tensor', reading.inputs, reading.data_samples), wanted)

    @contextmanager
    def _entered_with(self, model: nn.Module, feature: Tensor) -> Iterator[None]:
        """Puts the feature in the place of the stage, and nothing in that of the modules before it."""
        stand_ins: dict[str, nn.Module] = {path: _PassThrough(model.get_submodule(path), count)
                                           for path, count in self._earlier.items()}
        stand_ins[self.stage] = _Constant(self._activated(model, feature))
        with _replaced(model, stand_ins):
            yield

    def _activated(self, model: nn.Module, feature: Tensor) -> Tensor:
        if self._activation is None:
            return feature
        activation = model.get_submodule(self._activation)
        # The feature itself is compared with the teacher's: an activation in place would overwrite it.
        return activation(feature.clone() if getattr(activation, 'inplace', False) else feature)

    def _check(self, reading: TappedPass, tap: str, wanted: Collection[str]) -> None:
        """Runs it once with an earlier part that is not a number: nothing after the stage may notice."""
        [feature] = reading[tap]
        poisoned = TappedPass(reading.features, reading.reader, torch.full_like(reading.inputs, torch.nan),
                           reading.data_samples)
        try:
            with eval_isolated(reading.model):
                found = self.run(poisoned, torch.zeros_like(feature), wanted)
        except Exception as error:
            raise ValueError(f'the network cannot be continued from {tap!r} alone: {error}. Tap the ends of entire '
                             "stages, such as 'backbone.layer2:pre', or the last one only.") from error
        unclean = [text for text, tensors in found.items() if not all(tensor.isfinite().all() for tensor in tensors)]
        if unclean:
            raise ValueError(f'the network cannot be continued from {tap!r} alone: {unclean[0]!r} also depends on '
                             'what runs before it. Tap a later stage, or the last one only.')


class StageChain:
    """A network as a chain of stages that end in an output.

    Args:
        reading (TappedPass): The dry run of the network.
        stages (Sequence[str]): Taps of the stages, in the order of the network.
        output (str): Tap of the output.

    Raises:
        ValueError: A stage gives several features, or the network cannot be continued from it.
    """

    def __init__(self, reading: TappedPass, stages: Sequence[str], output: str) -> None:
        self.stages = list(stages)
        self.output = output
        for tap in (*stages, output):
            if len(reading[tap]) != 1:
                raise ValueError(f'{tap!r} gives {len(reading[tap])} features; name a place that gives one, such as '
                                 "'backbone.layer4:pre' or 'head.fc'.")
            if reading.layouts(tap)[0].kind not in ('map', 'plain'):
                raise ValueError(f'{tap!r} gives tokens or a channels-last map, from which a network cannot be '
                                 'continued; name a place that gives a map (N, C, H, W).')
        calls = trace(reading.model, reading.inputs.shape[-1])
        _check_order(calls, self.stages)
        self._parts = [Tail(Tap.parse(tap), reading, calls, self._after(stage))
                       for stage, tap in enumerate(self.stages)]

    def features(self, reading: TappedPass) -> list[Tensor]:
        """The features of all stages of a pass."""
        return [reading[tap][0] for tap in self.stages]

    def run_from(self, stage: int, reading: TappedPass, feature: Tensor) -> tuple[list[Tensor], Tensor]:
        """Runs the network after a stage.

        Args:
            stage (int): Position of the stage.
            reading (TappedPass): A pass of the network, for its batch.
            feature (Tensor): In place of the stage's own.

        Returns:
            tuple[list[Tensor], Tensor]: The features of the later stages, and the output.
        """
        found = self._parts[stage].run(reading, feature, self._after(stage))
        return [found[tap][0] for tap in self.stages[stage + 1:]], found[self.output][0]

    def _after(self, stage: int) -> list[str]:
        return [*self.stages[stage + 1:], self.output]


@contextmanager
def handing_over(model: nn.Module, given: Mapping[str, Sequence[Tensor]]) -> Iterator[None]:
    """Lets towers of convolutions continue from given features, as those of heads that run level by level.

    A module that has features gives them, one a call, in place of what it computes; those in front of it in the same
    list hand on what they are given. The network is as it was afterwards.

    Args:
        model (nn.Module): A network, or a part of it.
        given (Mapping[str, Sequence[Tensor]]): By the path of a module inside a list, what it gives in a pass.

    Raises:
        ValueError: A module stands in no list, or runs more often or less often than it has features.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.ReLU())
        >>> with handing_over(model, {'1': [torch.full((1, 4, 1, 1), 2.0)]}):
        ...     model(torch.zeros(1, 3, 1, 1)).flatten()
        tensor([2., 2., 2., 2.])
    """
    stand_ins: dict[str, nn.Module] = {}
    for path in given:
        tower, _, name = path.rpartition('.')
        if not isinstance(model.get_submodule(tower), (nn.ModuleList, nn.Sequential)):
            raise ValueError(f'{path!r} is no part of a list of modules, so what runs before it is not known; name one '
                             "convolution of a tower, as in 'bbox_head.cls_convs.2:each'.")
        stand_ins.update({f'{tower}.{index}'.lstrip('.'): nn.Identity() for index in range(int(name))})
    handed = {path: _InOrder(path, features) for path, features in given.items()}
    with _replaced(model, {**stand_ins, **handed}):
        yield
    for stand_in in handed.values():
        stand_in.check_used()


def _check_order(calls: Sequence[Call], stages: Sequence[str]) -> None:
    """Whether the stages end one after the other."""
    places = [Tap.parse(stage).place.path for stage in stages]
    ends = [max(index for index, call in enumerate(calls) if call.path == path) for path in places]
    for (first, end), (second, later) in pairwise(zip(stages, ends)):
        if not end < later:
            raise ValueError(f'stages stand in the order of the network, each once, but {second!r} does not end after '
                             f'{first!r}.')


def _calls_before(calls: Sequence[Call], stage: str) -> Counter:
    """How often each outermost module runs before a stage begins."""
    end = max(index for index, call in enumerate(calls) if call.path == stage)
    before = [call.path for call in calls[:end] if not call.path.startswith(f'{stage}.')]
    around = {stage[:index] for index, letter in enumerate(stage) if letter == '.'} | {''}
    outermost = [path for path in before if path not in around
                 and not any(path.startswith(f'{other}.') for other in before if other not in around)]
    return Counter(outermost)


class _PassThrough(nn.Module):
    """Stands in for a module of the earlier part; one that also runs later does so then."""

    def __init__(self, own: nn.Module, calls: int) -> None:
        super().__init__()
        # Not registered: it stays where it was for whatever lists the parameters meanwhile.
        self._own = (own,)
        self._calls_left = calls

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not self._calls_left:
            return self._own[0](*args, **kwargs)
        self._calls_left -= 1
        return next(iter((*args, *kwargs.values())))


class _Constant(nn.Module):
    """Stands in for the stage."""

    def __init__(self, feature: Tensor) -> None:
        super().__init__()
        self._feature = feature

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._feature


class _InOrder(nn.Module):
    """Stands in for a module that runs several times."""

    def __init__(self, path: str, features: Sequence[Tensor]) -> None:
        super().__init__()
        self._path = path
        self._features = features
        self._calls = 0

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        self._calls += 1
        if self._calls > len(self._features):
            self.check_used()
        return self._features[self._calls - 1]

    def check_used(self) -> None:
        """Whether each feature was asked for once."""
        if self._calls != len(self._features):
            raise ValueError(f'{self._path!r} has {len(self._features)} feature(s) to hand over, and '
                             f'{"more" if self._calls > len(self._features) else f"only {self._calls}"} were asked for '
                             "in a pass; of a module that runs once a level, tap each call, as in "
                             f"'{self._path}:each'.")


@contextmanager
def _replaced(model: nn.Module, stand_ins: Mapping[str, nn.Module]) -> Iterator[None]:
    """Puts other modules in some places of the tree for a while."""
    own = {path: _put(model, path, stand_in) for path, stand_in in stand_ins.items()}
    try:
        yield
    finally:
        for path, module in own.items():
            _put(model, path, module)


def _put(model: nn.Module, path: str, module: nn.Module) -> nn.Module:
    """Puts a module in a place of the tree and returns what was there."""
    parent, _, name = path.rpartition('.')
    owner = model.get_submodule(parent)
    while name not in owner._modules:
        owner = owner.module  # a wrapper, as FSDP puts one around a part of a network
    own, owner._modules[name] = owner._modules[name], module
    assert own is not None, f'{path} ran in the dry run, so it is there'
    return own
