"""Running the later part of a network from a given feature, without running the earlier part."""
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmfeatdistill.probing import run_entry, trace, undisturbed
from mmfeatdistill.reading import Reading
from mmfeatdistill.taps import Features, Tap
from mmfeatdistill.tracing import Call, closing_activation


class LaterPart:
    """What a network does after one of its stages.

    The network's own ``forward`` runs, but the stage gives a feature that it is handed, and whatever ran before the
    stage hands its input on. So any network that passes from stage to stage by calling modules can be continued,
    without a line about its architecture. One that needs more than this stage's output later on, as a decode head on
    several stages does, cannot; that is found when it is built.

    It holds names only, no module, so it can be copied and moved freely.

    Args:
        stage (Tap): The stage, as ``'backbone.layer2'``, or ``'backbone.layer2:pre'`` to be continued from in front of
            its last activation.
        reading (Reading): The dry run of the network.
        calls (Sequence[Call]): A trace of it.
        wanted (Collection[str]): What will be read behind the stage.

    Raises:
        ValueError: The later part cannot be run from this stage alone.
    """

    def __init__(self, stage: Tap, reading: Reading, calls: Sequence[Call], wanted: Collection[str]) -> None:
        self.stage = stage.place.path
        self._activation = closing_activation(calls, self.stage) if stage.is_pre else None
        self._earlier = _calls_before(calls, self.stage)
        self._check(reading, stage.text, wanted)

    def run(self, reading: Reading, feature: Tensor, wanted: Collection[str]) -> Features:
        """Runs the later part, with gradient where it is on.

        Args:
            reading (Reading): A pass of the network, for its batch.
            feature (Tensor): In place of the stage's output, or of what goes into its last activation.
            wanted (Collection[str]): Taps behind the stage, some of those that ``reading`` has.

        Returns:
            Features: The tapped tensors.
        """
        with self._entered_with(reading.model, feature):
            return reading.reader.read_until_complete(
                lambda: run_entry(reading.model, 'tensor', reading.inputs, reading.data_samples), wanted)

    @contextmanager
    def _entered_with(self, model: nn.Module, feature: Tensor) -> Iterator[None]:
        """Lets the stage give the feature, and the modules before it nothing of their own."""
        replaced = {path: partial(_hand_on, [count], model.get_submodule(path).forward)
                    for path, count in self._earlier.items()}
        replaced[self.stage] = lambda *args, **kwargs: self._activated(model, feature)
        modules = {path: model.get_submodule(path) for path in replaced}
        own = {path: vars(module).get('forward') for path, module in modules.items()}
        try:
            for path, forward in replaced.items():
                modules[path].forward = forward
            yield
        finally:
            for path, module in modules.items():
                del module.forward
                if own[path] is not None:
                    module.forward = own[path]

    def _activated(self, model: nn.Module, feature: Tensor) -> Tensor:
        if self._activation is None:
            return feature
        activation = model.get_submodule(self._activation)
        # The feature itself is compared with the teacher's: an activation in place would overwrite it.
        return activation(feature.clone() if getattr(activation, 'inplace', False) else feature)

    def _check(self, reading: Reading, tap: str, wanted: Collection[str]) -> None:
        """Runs it once with an earlier part that is not a number: nothing behind the stage may notice."""
        [feature] = reading[tap]
        poisoned = Reading(reading.features, reading.reader, torch.full_like(reading.inputs, torch.nan),
                           reading.data_samples)
        try:
            with undisturbed(reading.model):
                found = self.run(poisoned, torch.zeros_like(feature), wanted)
        except Exception as error:
            raise ValueError(f'the network cannot be continued from {tap!r} alone: {error}') from error
        unclean = [text for text, tensors in found.items() if not all(tensor.isfinite().all() for tensor in tensors)]
        if unclean:
            raise ValueError(f'the network cannot be continued from {tap!r} alone: {unclean[0]!r} also depends on '
                             'what runs before it. Tap a later stage, or the last one only.')


class StageChain:
    """A network as a chain of stages that end in an output.

    Args:
        reading (Reading): The dry run of the network.
        stages (Sequence[str]): Taps of the stages, in the order of the network.
        output (str): Tap of the output.

    Raises:
        ValueError: A stage gives several features, or the network cannot be continued from it.
    """

    def __init__(self, reading: Reading, stages: Sequence[str], output: str) -> None:
        self.stages = list(stages)
        self.output = output
        for tap in (*stages, output):
            if len(reading[tap]) != 1:
                raise ValueError(f'{tap!r} gives {len(reading[tap])} features; name a place that gives one, such as '
                                 "'backbone.layer4:pre' or 'head.fc'.")
        calls = trace(reading.model, reading.inputs.shape[-1])
        self._parts = [LaterPart(Tap.parse(tap), reading, calls, self._behind(stage))
                       for stage, tap in enumerate(self.stages)]

    def features(self, reading: Reading) -> list[Tensor]:
        """The features of all stages of a pass."""
        return [reading[tap][0] for tap in self.stages]

    def run_from(self, stage: int, reading: Reading, feature: Tensor) -> tuple[list[Tensor], Tensor]:
        """Runs the network behind a stage.

        Args:
            stage (int): Position of the stage.
            reading (Reading): A pass of the network, for its batch.
            feature (Tensor): In place of the stage's own.

        Returns:
            tuple[list[Tensor], Tensor]: The features of the later stages, and the output.
        """
        found = self._parts[stage].run(reading, feature, self._behind(stage))
        return [found[tap][0] for tap in self.stages[stage + 1:]], found[self.output][0]

    def _behind(self, stage: int) -> list[str]:
        return [*self.stages[stage + 1:], self.output]


def _calls_before(calls: Sequence[Call], stage: str) -> Counter:
    """How often each outermost module runs before a stage begins."""
    end = max(index for index, call in enumerate(calls) if call.path == stage)
    before = [call.path for call in calls[:end] if not call.path.startswith(f'{stage}.')]
    around = {stage[:index] for index, letter in enumerate(stage) if letter == '.'} | {''}
    outermost = [path for path in before if path not in around
                 and not any(path.startswith(f'{other}.') for other in before if other not in around)]
    return Counter(outermost)


def _hand_on(calls_left: list[int], own: Callable, *args: Any, **kwargs: Any) -> Any:
    """Takes the place of a module of the earlier part; a module that also runs later does so then."""
    if not calls_left[0]:
        return own(*args, **kwargs)
    calls_left[0] -= 1
    return next(iter((*args, *kwargs.values())))
