"""Reading the tapped features of a network while it runs."""
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Optional

import torch
from torch import Tensor, nn

from mmfeatdistill.errors import did_you_mean
from mmfeatdistill.taps.tap import Place, Tap, TapsNotReached
from mmfeatdistill.taps.tracing import tensors_in, trace

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
        taps (Sequence[str]): Taps; see the module's grammar. Duplicates are read once.
        owner (str): What the model is called in messages: ``'student'``.

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
        self.model = model
        self.owner = owner
        self.taps = self._written = [Tap.parse(text) for text in dict.fromkeys(taps)]
        for tap in self.taps:
            _check_module_exists(model, tap, owner)
        self._overwritten: set[Place] = set()
        self._expected_calls: dict[Place, int] = {}

    def probe(self, run: Callable[[], Any]) -> Features:
        """Runs the entire pass once to learn how often each tap is called and which are overwritten.

        Args:
            run: Runs the model. It may fail once all taps are read: a head that does not accept the
                features is of no concern here.

        Returns:
            Features: The tapped tensors, with the values that later passes would read.

        Raises:
            TapsNotReached: A tapped module did not run; the cause is chained if ``run`` failed.
            ValueError: A tap selects no tensor.
        """
        calls = trace(self.model, run) if any(tap.is_pre for tap in self._written) else []
        self.taps = [tap.located(calls) for tap in self._written]
        # The pass goes on with copies everywhere, so that it may overwrite them.
        self._overwritten, self._expected_calls = {tap.place for tap in self.taps}, {}
        cause = None
        copies: dict[Place, list[Tensor]] = {}
        with self._intercepting(self.taps, copies=copies) as caught:
            try:
                run()
            except Exception as error:  # noqa: BLE001 - reported below unless every tap was read
                cause = error
        _check_all_ran(self.taps, caught, self.owner, cause)
        self._overwritten = {place for place, tensors in copies.items() if any(tensor._version for tensor in tensors)}
        self._expected_calls = {place: catch.calls for place, catch in caught.items()}
        return _select(self.taps, caught)

    def survey(self, run: Callable[[], Any]) -> tuple[dict[str, tuple[list[Tensor], int]], Optional[Exception]]:
        """Runs the entire pass once and tells which of the tapped modules ran, and what they gave.

        Args:
            run: Runs the model. It may fail on the way.

        Returns:
            tuple[dict[str, tuple[list[Tensor], int]], Exception]: The tensors of the last call and the number of calls,
            by tap, in the order in which the modules first ended; and what ended the pass early, if anything.
        """
        failure = None
        with self._intercepting(self.taps) as caught:
            try:
                run()
            except Exception as error:  # noqa: BLE001 - what ran before it failed can be tapped
                failure = error
        found = {place.path: (catch.tensors, catch.calls) for place, catch in caught.items() if catch.tensors}
        return found, failure

    @torch.compiler.disable(recursive=False)
    def read(self, run: Callable[[], Any]) -> tuple[Features, Any]:
        """Runs an entire pass and reads the taps on the way.

        Args:
            run: Runs the model.

        Returns:
            tuple[Features, Any]: The tapped tensors, and what ``run`` returned.

        Raises:
            TapsNotReached: A tapped module did not run.
            RuntimeError: A tapped tensor was overwritten in place after it was read, or has no gradient
                because of gradient checkpointing.
        """
        with self._intercepting(self.taps) as caught:
            output = run()
        return self._finish(caught, self.taps), output

    def read_until_complete(self, run: Callable[[], Any], wanted: Optional[Collection[str]] = None) -> Features:
        """Like :meth:`read`, but ends the pass at the last tap: nothing after it runs.

        Args:
            run: Runs the model.
            wanted (Collection[str], optional): Some of the taps. Defaults to None: all.

        Returns:
            Features: The tapped tensors.

        Raises:
            TapsNotReached: A tapped module did not run.
            RuntimeError: A tapped tensor was overwritten in place after it was read.
        """
        taps = [tap for tap in self.taps if wanted is None or tap.text in wanted]
        with self._intercepting(taps, stop=True) as caught:
            try:
                run()
            except _Complete:
                pass
        return self._finish(caught, taps)

    @contextmanager
    def _intercepting(self, taps: Sequence[Tap], stop: bool = False,
                      copies: Optional[dict[Place, list[Tensor]]] = None) -> Iterator[dict[Place, '_Catch']]:
        """Routes the tapped modules' forwards through :func:`_forward` for one pass."""
        caught: dict[Place, _Catch] = {}
        places = {tap.place: any(other.is_each for other in taps if other.place == tap.place) for tap in taps}
        catch = partial(self._catch, places, caught, stop, copies)
        restore: list[tuple[nn.Module, Optional[Any]]] = []
        try:
            for path in dict.fromkeys(tap.place.path for tap in taps):
                # Looked up by name each time: conversions such as SyncBN replace modules.
                module = self.model.get_submodule(path)
                restore.append((module, vars(module).get('forward')))
                module.forward = partial(_forward, module.forward, path, catch)
            yield caught
        finally:
            # Backwards: a module that is known by two names was replaced twice.
            for module, replaced in reversed(restore):
                del module.forward
                if replaced is not None:
                    module.forward = replaced

    @torch.compiler.disable
    def _catch(self, places: Mapping[Place, bool], caught: dict[Place, '_Catch'], stop: bool,
               copies: Optional[dict[Place, list[Tensor]]], place: Place, value: Any) -> Any:
        """Notes a place's tensors, of all calls where that is asked for, and returns what the pass goes on with."""
        if place not in places:
            return value
        caught[place] = _Catch(list(tensors_in(value)), caught.get(place), keeps=places[place])
        done = [p in caught and caught[p].calls >= self._expected_calls.get(p, 1) for p in (place, *places)]
        if stop and all(done):
            raise _Complete
        # A call before the last one that counts gives nothing that is read: it may be overwritten.
        is_read = places[place] or done[0]
        if not is_read or place not in self._overwritten:
            return value
        value = _clone(value)
        if copies is not None:
            copies[place] = [*(copies.get(place, []) if places[place] else []), *tensors_in(value)]
        return value

    @torch.compiler.disable
    def _finish(self, caught: dict[Place, '_Catch'], taps: Sequence[Tap]) -> Features:
        _check_all_ran(taps, caught, self.owner)
        stale = [place.path for place, catch in caught.items() if catch.is_stale()]
        if stale:
            raise RuntimeError(f'{self.owner}: the tapped tensor of {stale[0]!r} was overwritten in place '
                               'later in the pass, so its values are lost. Tap the output of the module '
                               'that overwrites it instead.')
        cut_off = [place.path for place, catch in caught.items() if torch.is_grad_enabled() and not catch.grad_enabled]
        if cut_off:
            raise RuntimeError(f'{self.owner}: {cut_off[0]!r} runs without gradient, as inside a block of a backbone '
                               'with_cp=True, so no loss on it could reach the weights. Tap the output of the entire '
                               'block instead.')
        return _select(taps, caught)


@dataclass(frozen=True)
class TappedPass:
    """The tapped features of a pass, and what they were read from.

    An objective that only compares features needs ``reading[tap]``. One that runs a later part of the network itself,
    or looks at the labels, finds the network and the batch here; it keeps neither.

    Attributes:
        features (dict[str, list[Tensor]]): The tensors that each tap gave.
        reader (TapReader): What read them; it can read other passes of the same network.
        inputs (Tensor): The batch as this network saw it, shape (N, C, H, W).
        data_samples (Sequence, optional): Its data samples, with the labels.
    """

    features: Features
    reader: TapReader
    inputs: Tensor
    data_samples: Optional[Sequence[Any]] = None

    @property
    def model(self) -> nn.Module:
        """The network that ran."""
        return self.reader.model

    def __getitem__(self, tap: str) -> list[Tensor]:
        """The tensors that a tap gave."""
        return self.features[tap]


class _Catch:
    """The tensors of one place, and the versions they had when they were caught."""

    def __init__(self, tensors: list[Tensor], before: Optional['_Catch'] = None, keeps: bool = False) -> None:
        self.tensors = tensors
        self.of_each_call: list[Tensor] = [*before.of_each_call, *tensors] if before is not None and keeps else tensors
        self.calls: int = 1 if before is None else before.calls + 1
        self.grad_enabled = torch.is_grad_enabled()
        self._versions = [tensor._version for tensor in tensors]
        self._before = before if keeps else None

    def is_stale(self) -> bool:
        """Whether something wrote into one of the tensors since."""
        return ([tensor._version for tensor in self.tensors] != self._versions
                or (self._before is not None and self._before.is_stale()))


@torch.compiler.disable(recursive=False)
def _forward(original: Callable, path: str, catch: Callable[[Place, Any], Any], *args: Any, **kwargs: Any) -> Any:
    """The forward of a tapped module while reading."""
    args, kwargs = catch(Place(path, True), (args, kwargs))
    return catch(Place(path, False), original(*args, **kwargs))


def _check_all_ran(taps: Sequence[Tap], caught: Mapping, owner: str, cause: Optional[Exception] = None) -> None:
    missing = [tap.place.path for tap in taps if tap.place not in caught]
    if missing:
        reason = f' ({type(cause).__name__}: {cause})' if cause else ''
        raise TapsNotReached(f'{owner}: {missing[0]!r} exists but did not run in this pass{reason}.') from cause


def _select(taps: Sequence[Tap], caught: Mapping[Place, _Catch]) -> Features:
    return {tap.text: tap.select(caught[tap.place].of_each_call if tap.is_each else caught[tap.place].tensors)
            for tap in taps}


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


def _clone(value: Any) -> Any:
    """The same nest with its tensors cloned."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return type(value)({key: _clone(item) for key, item in value.items()})
    if isinstance(value, (tuple, list)):
        items = [_clone(item) for item in value]
        return type(value)(*items) if hasattr(value, '_fields') else type(value)(items)
    return value
