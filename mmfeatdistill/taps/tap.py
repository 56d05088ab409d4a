"""The grammar of taps, which name the places of a network that are read.

A tap is written ``path``, ``path[i]``, ``path[i:j]``, ``path:in``, ``path:in[i]``, ``path:pre`` or ``path:each``:

- ``'neck'``: what the module returns; a tuple gives one feature per item;
- ``'backbone.layer4'``: any submodule, with the names of ``named_modules()``;
- ``'neck[1:4]'``, ``'neck[-1]'``: some of what it returns, counting the tensors of a nested output in order;
- ``'backbone.layer4.1.relu:in'``: what goes into the module;
- ``'backbone.layer4:pre'``: what the module would return without the activation that ends it, found by tracing; its
  output where none ends it;
- ``'bbox_head.cls_convs.3:each'``: what each call of the module returns, in order; heads may run level by level.

Without ``:each`` the last call counts of a module that runs more than once in a pass. Modules whose ``forward`` is
called directly, as mmseg calls its decode heads, can be tapped like any other.
"""
import re
from collections.abc import Sequence
from typing import NamedTuple, Optional, Union

from torch import Tensor, nn

from mmfeatdistill.errors import did_you_mean
from mmfeatdistill.taps.tracing import Call, closing_activation

_GRAMMAR = re.compile(r'(?P<path>\w+(\.\w+)*)(?P<side>:in|:pre|:each)?(\[(?P<index>-?\d+|(-?\d*):(-?\d*))\])?')


class Place(NamedTuple):
    """Where tensors are picked up: a module's output, or its input."""

    path: str
    is_input: bool


class Tap(NamedTuple):
    """A parsed tap: a place, and which of its tensors are wanted.

    Attributes:
        text (str): As it was written.
        place (Place): Where it reads. With ``is_pre`` this is the module as written, until :meth:`located`.
        items (int | slice): Which tensors of the place.
        is_pre (bool): Whether the place is in front of the activation that ends the module.
        is_each (bool): Whether all calls of the module count.
    """

    text: str
    place: Place
    items: Union[int, slice]
    is_pre: bool = False
    is_each: bool = False

    @classmethod
    def parse(cls, text: str) -> 'Tap':
        """Parses a tap.

        Args:
            text (str): For example ``'neck[1:4]'``.

        Returns:
            Tap: Its parts.

        Raises:
            TypeError: ``text`` is no string.
            ValueError: ``text`` does not follow the grammar.

        Examples:
            >>> Tap.parse('backbone.layer4.1.relu:in').place
            Place(path='backbone.layer4.1.relu', is_input=True)
        """
        if not isinstance(text, str):
            raise TypeError(f"a tap is a string such as 'neck' or 'backbone.layer4', got {text!r}.")
        match = _GRAMMAR.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is an invalid tap; write 'module.path', 'module.path[1:4]', 'module.path:in', "
                             "'module.path:pre' or 'module.path:each'.")
        return cls(text, Place(match['path'], match['side'] == ':in'), _parse_index(match['index']),
                   match['side'] == ':pre', match['side'] == ':each')

    def check_exists(self, model: nn.Module, owner: str) -> None:
        """Checks that a network has the module.

        Args:
            model (nn.Module): The network.
            owner (str): Whose it is, as a message calls it.

        Raises:
            ValueError: It has none of this name; the nearest one is named.
        """
        path = self.place.path
        names = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
        if path not in names:
            parent = path
            while parent and parent not in names:
                parent = parent.rpartition('.')[0]
            children = ', '.join(name for name, _ in model.get_submodule(parent).named_children())
            raise ValueError(f'{owner} has no module {path!r}{did_you_mean(path, names)} '
                             f'{repr(parent) if parent else "It"} has: {children or "no modules"}.')

    def located(self, calls: Sequence[Call]) -> 'Tap':
        """The same tap with the place that a trace shows it to read.

        Args:
            calls (Sequence[Call]): A trace of the network.

        Returns:
            Tap: Itself, unless it ``is_pre``.

        Raises:
            ValueError: The module gives several features.
            TapsNotReached: It did not run.
        """
        if not self.is_pre:
            return self
        if all(call.path != self.place.path for call in calls):
            raise TapsNotReached(f'{self.place.path!r} did not run in this pass.')
        activation = closing_activation(calls, self.place.path)
        return self if activation is None else self._replace(place=Place(activation, True))

    def select(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The wanted ones of a place's tensors.

        Raises:
            ValueError: There are no such items.
        """
        if isinstance(self.items, slice):
            selected = list(tensors[self.items])
        else:
            selected = [tensors[self.items]] if -len(tensors) <= self.items < len(tensors) else []
        if not selected:
            raise ValueError(f'{self.text!r} selects none of the {len(tensors)} feature(s) that '
                             f'{self.place.path!r} gives.')
        return selected


class TapsNotReached(RuntimeError):
    """A forward pass ended before every tapped module had run."""


def _parse_index(text: Optional[str]) -> Union[int, slice]:
    if text is None:
        return slice(None)
    if ':' not in text:
        return int(text)
    start, stop = (int(bound) if bound else None for bound in text.split(':'))
    return slice(start, stop)
