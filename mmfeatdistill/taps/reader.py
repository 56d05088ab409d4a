"""Reading the tapped features of a network while it runs."""
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Optional, Union

import torch
from torch import Tensor, nn

from mmfeatdistill.taps.layout import Layout, to_map
from mmfeatdistill.taps.recording import PassComplete, Recording
from mmfeatdistill.taps.tap import Place, Tap, TapsNotReached
from mmfeatdistill.taps.tracing import tensors_in, trace
from mmfeatdistill.taps.uncompiled import leave_uncompiled, uncompiled

Features = dict[str, list[Tensor]]
"""The tensors that each tap gave, by the tap's text."""


class TapReader:
    """Reads a set of taps of one model.

    While it reads, the ``forward`` of the tapped modules is replaced on the instances, and restored
    afterwards: between two readings the model is exactly what it was, for pickling, copying,
    exporting and evaluation.

    A tap never lies: where something overwrites a tapped tensor in place later in the pass, as an
    in-place ReLU or a residual ``+=`` does, :meth:`probe` finds it and later passes go on with a copy.
    An overwrite that the probe could not see is an error in :meth:`read`, and so is a tap inside a part
    that runs without gradient although gradients are on around it (reentrant gradient checkpointing).

    A model under ``torch.compile`` can be read: a graph ends where a tapped module begins, and another begins.

    Args:
        model (nn.Module): The model.
        taps (Sequence[str]): Taps; see :mod:`mmfeatdistill.taps.tap`. Duplicates are read once.
        owner (str): What the model is called in messages: ``'student'``.

    Attributes:
        taps (list[Tap]): What is read; with ``:pre`` at the place that :meth:`probe` has found.
        layouts (dict[str, list[Layout]]): By the tap's text, how its tensors lie over the image, set by the dry run.
            With a layout, features are maps; without one they stay as the network gives them.
        predictions (set[str]): Taps that give what the network returned in the dry run, such as the logits of a head.
        draws (bool): Whether the network draws random numbers even when it predicts, as the dry run has found.
        cut_off (set[str]): Taps in parts that ran without gradient though gradients were on around them, as the last
            :meth:`probe_places` has found.
        frozen (set[str]): Likewise, taps whose tensors no parameter that learns has a part in.
        side (int, optional): Of the square image of the last dry run.
        failure (Exception, optional): What ended the last such pass early, after all taps were read.

    Raises:
        ValueError: A tap names no module of the model; names the nearest ones.

    Examples:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.ReLU(inplace=True))
        >>> reader = TapReader(model, ['0', '1'], owner='student')
        >>> image = torch.randn(2, 3, 8, 8)
        >>> {tap: tuple(tensors[0].shape) for tap, tensors in reader.probe(lambda: model(image)).items()}
        {'0': (2, 4, 8, 8), '1': (2, 4, 8, 8)}
        >>> features, output = reader.read(lambda: model(image))
        >>> bool((features['0'][0] < 0).any()), output is features['1'][0]
        (True, True)
    """

    def __init__(self, model: nn.Module, taps: Sequence[str], owner: str) -> None:
        leave_uncompiled()
        self.model = model
        self.owner = owner
        self.taps = self._written = [Tap.parse(text) for text in dict.fromkeys(taps)]
        for tap in self.taps:
            tap.check_exists(model, owner)
        self._overwritten: set[Place] = set()
        self._expected_calls: dict[Place, int] = {}
        self.layouts: dict[str, list[Layout]] = {}
        self.predictions: set[str] = set()
        self._returned: set[str] = set()
        self.draws = False
        self.cut_off: set[str] = set()
        self.frozen: set[str] = set()
        self.side: Optional[int] = None
        self.failure: Optional[Exception] = None
        self._bound: dict[str, list[int]] = {}
        self._numbers: dict[str, int] = {}

    @property
    def calls(self) -> dict[str, int]:
        """By the tap's text, how often its module runs in a pass, as :meth:`probe` has found."""
        return {tap.text: self._expected_calls.get(tap.place, 1) for tap in self.taps}

    @property
    def is_cut_short(self) -> bool:
        """Whether the last probed pass failed, perhaps before the last call of a module that runs several times."""
        return self.failure is not None and any(tap.is_each or self._expected_calls.get(tap.place, 1) > 1
                                                for tap in self.taps)

    def probe(self, run: Callable[[], Any]) -> Features:
        """Runs the entire pass once to learn how often each tap is called and which are overwritten.

        Args:
            run: Runs the model. It may fail once all taps are read: a head that does not accept the
                features is of no concern here.

        Returns:
            Features: The tapped tensors as the network gives them, with the values that later passes would read.

        Raises:
            TapsNotReached: A tapped module did not run; the cause is chained if ``run`` failed.
            ValueError: A tap selects no tensor.
        """
        places = self.probe_places(run)
        self.predictions = self._returned
        return {tap.text: _distinct(tap.select(given)) for tap, given in zip(self.taps, places)}

    def probe_places(self, run: Callable[[], Any]) -> list[list[Tensor]]:
        """Like :meth:`probe`, but gives all tensors of each tap's place, of which the tap selects some.

        Args:
            run: See :meth:`probe`.

        Returns:
            list[list[Tensor]]: In the order of the taps.

        Raises:
            TapsNotReached: See :meth:`probe`.
        """
        calls = trace(self.model, run) if any(tap.is_pre for tap in self._written) else []
        taps = [tap.located(calls) for tap in self._written]
        # The pass goes on with copies everywhere, so that it may overwrite them; the copies tell whether it did.
        recording = Recording(taps, overwritten={tap.place for tap in taps}, keeps_copies=True)
        cause, output = None, None
        with self._intercepting(recording):
            try:
                output = run()
            except Exception as error:  # noqa: BLE001 - reported below unless every tap was read
                cause = error
        self._check_all_ran(recording, cause)
        self.taps, self._overwritten = taps, recording.written_copies()
        self._returned = {tap.text for tap in taps if recording.gives_any_of(tap.place, tensors_in(output))}
        # A pass that was cut short may have ended before a module's last call.
        known = self._expected_calls if cause is not None else {}
        self._expected_calls = {place: max(caught.calls, known.get(place, 1))
                                for place, caught in recording.caught.items()}
        self.failure = cause
        places = [recording.given(tap) for tap in taps]
        self.cut_off = {tap.text for tap in taps if recording.is_cut_off(tap.place)}
        self.frozen = {tap.text for tap, given in zip(taps, places) if torch.is_grad_enabled()
                       and not any(tensor.requires_grad for tensor in given)} - self.cut_off
        self._numbers = {tap.text: len(given) for tap, given in zip(taps, places)}
        return places

    def bind(self, text: str, positions: Sequence[int]) -> None:
        """Lets :meth:`read` take other tensors of a tap's place than the tap's own items.

        Args:
            text (str): The tap.
            positions (Sequence[int]): Of the tensors of its place, in the order in which they are wanted.
        """
        self._bound[text] = list(positions)

    def survey(self, run: Callable[[], Any]) -> tuple[dict[str, tuple[list[Tensor], int]], Optional[Exception]]:
        """Runs the entire pass once and tells which of the tapped modules can be read, and what they gave.

        Args:
            run: Runs the model. It may fail on the way.

        Returns:
            tuple[dict[str, tuple[list[Tensor], int]], Exception]: The tensors of the last call and the number of calls,
            by tap, in the order in which the modules first ended; and what ended the pass early, if anything.
        """
        failure, recording = None, Recording(self.taps)
        with self._intercepting(recording):
            try:
                run()
            except Exception as error:  # noqa: BLE001 - what ran before it failed can be tapped
                failure = error
        return {place.path: (caught.tensors, caught.calls) for place, caught in recording.caught.items()
                if caught.tensors and not recording.is_cut_off(place)}, failure

    @uncompiled(recursive=False)
    def read(self, run: Callable[[], Any], size: Optional[Sequence[int]] = None) -> tuple[Features, Any]:
        """Runs an entire pass and reads the taps on the way.

        Args:
            run: Runs the model.
            size (Sequence[int], optional): Height and width of the images, where tokens become maps.

        Returns:
            tuple[Features, Any]: The tapped tensors, and what ``run`` returned.

        Raises:
            TapsNotReached: A tapped module did not run.
            RuntimeError: A tapped tensor was overwritten in place after it was read, has no gradient
                because of gradient checkpointing, or a tap gives another number of tensors than in the dry run.
        """
        recording = Recording(self.taps, self._overwritten, self._expected_calls)
        with self._intercepting(recording):
            output = run()
        self._check_all_ran(recording)
        self._check_numbers(recording)
        return self._finish(recording, size), output

    @uncompiled(recursive=False)
    def read_until_complete(self, run: Callable[[], Any], wanted: Optional[Collection[str]] = None,
                            size: Optional[Sequence[int]] = None) -> Features:
        """Like :meth:`read`, but ends the pass at the last tap: nothing after it runs.

        Args:
            run: Runs the model.
            wanted (Collection[str], optional): Some of the taps. Defaults to None: all.
            size (Sequence[int], optional): Height and width of the images, where tokens become maps.

        Returns:
            Features: The tapped tensors.

        Raises:
            TapsNotReached: A tapped module did not run.
            RuntimeError: See :meth:`read`.
        """
        taps = [tap for tap in self.taps if wanted is None or tap.text in wanted]
        recording = Recording(taps, self._overwritten, self._expected_calls, stops=True)
        with self._intercepting(recording):
            try:
                run()
            except PassComplete:
                pass
        return self._finish(recording, size)

    @contextmanager
    def _intercepting(self, recording: Recording) -> Iterator[None]:
        """Routes the tapped modules' forwards through one pass.

        ``forward`` is replaced on the instance and not hooked, as mmseg calls the ``forward`` of its decode heads
        directly, which fires no hook; and as what the pass goes on with has to be exchanged for a copy on the way in.
        """
        restore: list[tuple[nn.Module, Optional[Any]]] = []
        try:
            for path in dict.fromkeys(tap.place.path for tap in recording.taps):
                # Looked up by name each time: conversions such as SyncBN replace modules.
                module = self.model.get_submodule(path)
                restore.append((module, vars(module).get('forward')))
                module.forward = partial(recording.run, module.forward, path)
            yield
        finally:
            # Backwards: a module that is known by two names was replaced twice.
            for module, replaced in reversed(restore):
                del module.forward
                if replaced is not None:
                    module.forward = replaced

    @uncompiled(recursive=True)
    def _finish(self, recording: Recording, size: Optional[Sequence[int]]) -> Features:
        self._check_all_ran(recording)
        stale = [place.path for place, caught in recording.caught.items() if caught.is_stale()]
        if stale:
            raise RuntimeError(f'{self.owner}: the tapped tensor of {stale[0]!r} was overwritten in place '
                               'later in the pass, so its values are lost. Tap the output of the module '
                               'that overwrites it instead.')
        cut_off = [place.path for place in recording.caught if recording.is_cut_off(place)]
        if cut_off:
            raise RuntimeError(f'{self.owner}: {cut_off[0]!r} {why_cut_off(self.model, cut_off[0])} Tap the output of '
                               'the entire block instead.')
        return {tap.text: self._as_maps(tap.text, self._select(tap, recording.given(tap)), size)
                for tap in recording.taps}

    def _check_numbers(self, recording: Recording) -> None:
        """Before items are selected: the first of one tensor and the first of two are not the same."""
        for tap in recording.taps:
            given, known = len(recording.given(tap)), self._numbers.get(tap.text)
            if known is not None and given != known:
                raise RuntimeError(f'{self.owner}: {tap.place.path!r} gave {known} feature(s) in the dry run and gives '
                                   f'{given} now, so which of them {tap.text!r} means is not known. Name a module that '
                                   'runs alike in both; tools/list_taps.py lists them.')

    def _select(self, tap: Tap, given: list[Tensor]) -> list[Tensor]:
        """The tensors of a tap: those that it is bound to in training, or its own items."""
        positions = self._bound.get(tap.text)
        if positions is None or max(positions) >= len(given):
            return _distinct(tap.select(given))
        return [given[position] for position in positions]

    def _as_maps(self, text: str, tensors: list[Tensor], size: Optional[Sequence[int]]) -> list[Tensor]:
        """The features of a tap in the layouts that the dry run has found."""
        layouts = self.layouts.get(text)
        if layouts is None:
            return tensors
        if len(layouts) != len(tensors):
            raise RuntimeError(f'{self.owner}: {text!r} gave {len(layouts)} feature(s) in the dry run and gives '
                               f'{len(tensors)} now, so which of them is meant is not known. Name a module that runs '
                               'alike in both; tools/list_taps.py lists them.')
        try:
            return [to_map(tensor, layout, size) for tensor, layout in zip(tensors, layouts)]
        except ValueError as error:
            raise ValueError(f'{self.owner}: {text!r}: {error}') from None

    def _check_all_ran(self, recording: Recording, cause: Optional[Exception] = None) -> None:
        missing = [tap.place.path for tap in recording.taps if tap.place not in recording.caught]
        if missing:
            reason = f' ({_why_it_ended(cause)})' if cause else ''
            raise TapsNotReached(
                f'{self.owner}: {missing[0]!r} exists but did not run in this pass{reason}.') from cause


@dataclass(frozen=True)
class TappedPass:
    """The tapped features of a pass, and what they were read from.

    An objective that only compares features needs ``tapped[tap]``. One that runs the tail of the network itself,
    or looks at the labels, finds the network and the batch here; it keeps neither.

    Attributes:
        features (dict[str, list[Tensor]]): The tensors that each tap gave.
        reader (TapReader): What read them; it can read other passes of the same network.
        inputs (Tensor): The batch as this network saw it, shape (N, C, H, W).
        data_samples (Sequence, optional): Its data samples, with the labels.
        scale (float, optional): Pixels of this network's images for one of the student's; None where that differs from
            batch to batch.
    """

    features: Features
    reader: TapReader
    inputs: Tensor
    data_samples: Optional[Sequence[Any]] = None
    scale: Optional[float] = 1.0

    @property
    def model(self) -> nn.Module:
        """The network that ran."""
        return self.reader.model

    def __getitem__(self, tap: Union[str, Tap]) -> list[Tensor]:
        """The tensors that a tap gave."""
        return self.features[tap if isinstance(tap, str) else tap.text]

    def layouts(self, tap: str) -> list[Layout]:
        """How the tensors of a tap lie over the image, as the dry run has found.

        Args:
            tap (str): Its text.

        Returns:
            list[Layout]: One for each tensor, with strides in pixels of the student's images; where there was no dry
            run, maps and plain tensors of no known stride.
        """
        found = self.reader.layouts.get(tap) or [
            Layout('map' if tensor.dim() == 4 else 'plain') for tensor in self.features[tap]]
        if self.scale == 1:
            return found
        return [layout._replace(stride=layout.stride / self.scale if self.scale and layout.stride else None)
                for layout in found]


def _why_it_ended(cause: Exception) -> str:
    """Why a pass ended early; some heads, as that of mmdet's Sparse R-CNN, read labels even without losses."""
    error = f'{type(cause).__name__}: {cause}'
    if isinstance(cause, AttributeError) and str(cause.name).startswith(_LABELS):
        return (f'the pass ended before it, as the network reads the labels of its images, {cause.name!r}, even where '
                f'it computes no loss, and there are none when a network predicts, as a teacher does; {error}')
    return error


_LABELS = ('gt_', 'ignored_instances')
"""What attributes of data samples begin with that hold labels."""

_CHECKPOINTING = ('with_cp', 'use_checkpoint', 'gradient_checkpointing')
"""What the libraries call the option by which a block keeps no activations."""


def why_cut_off(model: nn.Module, path: str) -> str:
    """Why a module runs without gradient in training.

    Args:
        model (nn.Module): The network.
        path (str): Of the module.

    Returns:
        str: The end of a sentence that begins with the module, and its consequence.

    Examples:
        >>> block = nn.Sequential(nn.Conv2d(3, 8, 1))
        >>> block.with_cp = True
        >>> why_cut_off(nn.Sequential(block), '0.0')
        "runs without gradient in training, as '0' has with_cp=True, so no loss on it could reach the weights."
    """
    ends = [end for end, letter in enumerate(f'{path}.') if letter == '.']
    around = [path[:end] for end in reversed(ends)]
    options = ((place, name) for place in around for name in _CHECKPOINTING
               if getattr(model.get_submodule(place), name, False) is True)
    place, name = next(options, (None, None))
    reason = f'{place!r} has {name}=True' if place is not None else (
        'a block around it keeps no activations and runs again in the backward pass (gradient checkpointing, '
        'reversible layers)')
    return f'runs without gradient in training, as {reason}, so no loss on it could reach the weights.'


def _distinct(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Each tensor once: Swin's last stage returns one twice, whose loss would count double."""
    return list({id(tensor): tensor for tensor in tensors}.values())
