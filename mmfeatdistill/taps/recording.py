"""What tapped places give while a network runs once."""
import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from mmfeatdistill.taps.tap import Place, Tap
from mmfeatdistill.taps.tracing import tensors_in
from mmfeatdistill.taps.uncompiled import uncompiled


class PassComplete(BaseException):
    """Ends a forward pass at its last tap; no ``except Exception`` on the way may swallow it."""


class Recording:
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
        self.caught: dict[Place, Caught] = {}
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
            PassComplete: All taps are read, and the pass is to end then.
        """
        if place not in self._keeps_each:
            return value
        keeps_each = self._keeps_each[place]
        self.caught[place] = Caught(list(tensors_in(value)), self.caught.get(place), keeps_each)
        if self._stops and all(self._is_done(other) for other in self._keeps_each):
            raise PassComplete
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


class Caught:
    """The tensors of one place, and the versions they had when they were caught."""

    def __init__(self, tensors: list[Tensor], before: Optional['Caught'], keeps_each: bool) -> None:
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
