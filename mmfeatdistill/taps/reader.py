"""Reading the tapped features of a network while it runs."""
import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Optional, Union

import torch
from torch import Tensor, nn

from mmfeatdistill.errors import did_you_mean
from mmfeatdistill.taps.layout import Layout, to_map
from mmfeatdistill.taps.tap import Place, Tap, TapsNotReached
from mmfeatdistill.taps.tracing import tensors_in, trace
from mmfeatdistill.taps.uncompiled import leave_uncompiled, uncompiled

Features = dict[str, list[Tensor]]
"""The tensors that each tap gave, by the tap's text."""


class _Complete(BaseException):
    """Ends a forward pass at its last tap; no ``except Exception`` on the way may swallow it."""


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
            _check_module_exists(model, tap, owner)
        self._overwritten: set[Place] = set()
        self._expected_calls: dict[Place, int] = {}
        self.layouts: dict[str, list[Layout]] = {}
        self.predictions: set[str] = set()
        self._returned: set[str] = set()
        self.draws = False
        self.cut_off: set[str] = set()
        self.frozen: set[str] = set()
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
        tapped = _Pass(taps, overwritten={tap.place for tap in taps}, keeps_copies=True)
        cause, output = None, None
        with self._intercepting(tapped):
            try:
                output = run()
            except Exception as error:  # noqa: BLE001 - reported below unless every tap was read
                cause = error
        self._check_all_ran(tapped, cause)
        self.taps, self._overwritten = taps, tapped.written_copies()
        self._returned = {tap.text for tap in taps if tapped.gives_any_of(tap.place, tensors_in(output))}
        # A pass that was cut short may have ended before a module's last call.
        known = self._expected_calls if cause is not None else {}
        self._expected_calls = {place: max(caught.calls, known.get(place, 1))
                                for place, caught in tapped.caught.items()}
        self.failure = cause
        places = [tapped.given(tap) for tap in taps]
        self.cut_off = {tap.text for tap in taps if tapped.is_cut_off(tap.place)}
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
        failure, tapped = None, _Pass(self.taps)
        with self._intercepting(tapped):
            try:
                run()
            except Exception as error:  # noqa: BLE001 - what ran before it failed can be tapped
                failure = error
        return {place.path: (caught.tensors, caught.calls) for place, caught in tapped.caught.items()
                if caught.tensors and not tapped.is_cut_off(place)}, failure

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
        tapped = _Pass(self.taps, self._overwritten, self._expected_calls)
        with self._intercepting(tapped):
            output = run()
        self._check_all_ran(tapped)
        self._check_numbers(tapped)
        return self._finish(tapped, size), output

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
        tapped = _Pass(taps, self._overwritten, self._expected_calls, stops=True)
        with self._intercepting(tapped):
            try:
                run()
            except _Complete:
                pass
        return self._finish(tapped, size)

    @contextmanager
    def _intercepting(self, tapped: '_Pass') -> Iterator[None]:
        """Routes the tapped modules' forwards through one pass.

        ``forward`` is replaced on the instance and not hooked, as mmseg calls the ``forward`` of its decode heads
        directly, which fires no hook; and as what the pass goes on with has to be exchanged for a copy on the way in.
        """
        restore: list[tuple[nn.Module, Optional[Any]]] = []
        try:
            for path in dict.fromkeys(tap.place.path for tap in tapped.taps):
                # Looked up by name each time: conversions such as SyncBN replace modules.
                module = self.model.get_submodule(path)
                restore.append((module, vars(module).get('forward')))
                module.forward = partial(tapped.run, module.forward, path)
            yield
        finally:
            # Backwards: a module that is known by two names was replaced twice.
            for module, replaced in reversed(restore):
                del module.forward
                if replaced is not None:
                    module.forward = replaced

    @uncompiled(recursive=True)
    def _finish(self, tapped: '_Pass', size: Optional[Sequence[int]]) -> Features:
        self._check_all_ran(tapped)
        stale = [place.path for place, caught in tapped.caught.items() if caught.is_stale()]
        if stale:
            raise RuntimeError(f'{self.owner}: the tapped tensor of {stale[0]!r} was overwritten in place '
                               'later in the pass, so its values are lost. Tap the output of the module '
                               'that overwrites it instead.')
        cut_off = [place.path for place in tapped.caught if tapped.is_cut_off(place)]
        if cut_off:
            raise RuntimeError(f'{self.owner}: {cut_off[0]!r} {why_cut_off(self.model, cut_off[0])} Tap the output of '
                               'the entire block instead.')
        return {tap.text: self._as_maps(tap.text, self._select(tap, tapped.given(tap)), size) for tap in tapped.taps}

    def _check_numbers(self, tapped: '_Pass') -> None:
        """Before items are selected: the first of one tensor and the first of two are not the same."""
        for tap in tapped.taps:
            given, known = len(tapped.given(tap)), self._numbers.get(tap.text)
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

    def _check_all_ran(self, tapped: '_Pass', cause: Optional[Exception] = None) -> None:
        missing = [tap.place.path for tap in tapped.taps if tap.place not in tapped.caught]
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


class _Pass:
    """What the tapped places gave while a network runs once.

    Args:
        taps (Sequence[Tap]): What is read.
        overwritten (Collection[Place]): Places whose tensors the network overwrites later, and so goes on with copies.
        expected_calls (Mapping[Place, int]): How often each place is called in a pass; once where nothing is known.
        stops (bool): Whether the pass ends when the last tap is read.
        keeps_copies (bool): Whether the copies are kept, to see which of them were overwritten.
    """

    def __init__(self, taps: Sequence[Tap], overwritten: Collection[Place] = (),
                 expected_calls: Optional[Mapping[Place, int]] = None, stops: bool = False,
                 keeps_copies: bool = False) -> None:
        self.taps = taps
        self.caught: dict[Place, _Caught] = {}
        self._keeps_each = {tap.place: any(other.is_each for other in taps if other.place == tap.place) for tap in taps}
        self._overwritten = overwritten
        self._expected_calls = expected_calls or {}
        self._stops = stops
        self._copies: Optional[dict[Place, list[Tensor]]] = {} if keeps_copies else None

    @uncompiled(recursive=False)
    def run(self, forward: Callable, path: str, *args: Any, **kwargs: Any) -> Any:
        """The forward of a tapped module while reading."""
        args, kwargs = self.note(Place(path, True), (args, kwargs))
        return self.note(Place(path, False), forward(*args, **kwargs))

    @uncompiled(recursive=True)
    def note(self, place: Place, value: Any) -> Any:
        """Notes what a place gives, and returns what the pass goes on with: the same, or a copy.

        Raises:
            _Complete: All taps are read, and the pass is to end then.
        """
        if place not in self._keeps_each:
            return value
        keeps_each = self._keeps_each[place]
        self.caught[place] = _Caught(list(tensors_in(value)), self.caught.get(place), keeps_each)
        if self._stops and all(self._is_done(other) for other in self._keeps_each):
            raise _Complete
        # A call before the last one that counts gives nothing that is read: it may be overwritten.
        is_read = keeps_each or self._is_done(place)
        if not is_read or place not in self._overwritten:
            return value
        value = _clone(value)
        if self._copies is not None:
            earlier = self._copies.get(place, []) if keeps_each else []
            self._copies[place] = [*earlier, *tensors_in(value)]
        return value

    def given(self, tap: Tap) -> list[Tensor]:
        """All tensors of a tap's place."""
        caught = self.caught[tap.place]
        return caught.of_each_call if tap.is_each else caught.tensors

    def written_copies(self) -> set[Place]:
        """Places whose copies were written to: a tensor counts its in-place operations in ``_version``."""
        return {place for place, tensors in (self._copies or {}).items() if any(tensor._version for tensor in tensors)}

    def gives_any_of(self, place: Place, tensors: Iterable[Tensor]) -> bool:
        """Whether the pass went on with one of some tensors from a place."""
        given = {id(tensor) for tensor in (self._copies or {}).get(place, [])}
        return any(id(tensor) in given for tensor in tensors)

    def is_cut_off(self, place: Place) -> bool:
        """Whether a place ran without gradient, though there is gradient outside of it."""
        return torch.is_grad_enabled() and not self.caught[place].grad_enabled

    def _is_done(self, place: Place) -> bool:
        return place in self.caught and self.caught[place].calls >= self._expected_calls.get(place, 1)


class _Caught:
    """The tensors of one place, and the versions they had when they were caught."""

    def __init__(self, tensors: list[Tensor], before: Optional['_Caught'], keeps_each: bool) -> None:
        self.tensors = tensors
        self.of_each_call: list[Tensor] = [*before.of_each_call, *tensors] if before and keeps_each else tensors
        self.calls: int = 1 if before is None else before.calls + 1
        self.grad_enabled = torch.is_grad_enabled()
        # A tensor counts the operations that write into it: a later count means lost values.
        self._versions = [tensor._version for tensor in tensors]
        self._before = before if keeps_each else None

    def is_stale(self) -> bool:
        """Whether something wrote into one of the tensors since."""
        return ([tensor._version for tensor in self.tensors] != self._versions
                or (self._before is not None and self._before.is_stale()))


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


def _check_module_exists(model: nn.Module, tap: Tap, owner: str) -> None:
    path = tap.place.path
    names = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    if path not in names:
        parent = path
        while parent and parent not in names:
            parent = parent.rpartition('.')[0]
        children = ', '.join(name for name, _ in model.get_submodule(parent).named_children())
        raise ValueError(f'{owner} has no module {path!r}{did_you_mean(path, names)} '
                         f'{repr(parent) if parent else "It"} has: {children or "no modules"}.')


def _distinct(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Each tensor once: Swin's last stage returns one twice, whose loss would count double."""
    return list({id(tensor): tensor for tensor in tensors}.values())


def _clone(value: Any) -> Any:
    """The same nest with its tensors cloned."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        cloned = copy.copy(value)  # a defaultdict keeps its factory
        for key, item in value.items():
            cloned[key] = _clone(item)  # by update() the outputs of transformers refuse it
        return cloned
    if isinstance(value, (tuple, list)):
        items = [_clone(item) for item in value]
        return type(value)(*items) if hasattr(value, '_fields') else type(value)(items)
    return value
