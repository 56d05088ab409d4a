"""Keeping methods out of ``torch.compile`` without importing the compiler together with this package."""
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

F = TypeVar('F', bound=Callable)

_PUT_OFF: list[tuple[type, str, bool]] = []


class _Uncompiled:
    """What stands in the body of a class until its name is known."""

    def __init__(self, function: Callable, recursive: bool) -> None:
        self._function = function
        self._recursive = recursive

    def __set_name__(self, owner: type, name: str) -> None:
        setattr(owner, name, self._function)
        _PUT_OFF.append((owner, name, self._recursive))


def uncompiled(recursive: bool) -> Callable[[F], F]:
    """``torch.compiler.disable`` for a method, put off to :func:`leave_uncompiled`.

    Args:
        recursive (bool): Whether what the method calls stays uncompiled, too.

    Returns:
        Callable: A decorator.

    Examples:
        >>> class Doubling:
        ...     @uncompiled(recursive=True)
        ...     def double(self, value):
        ...         return 2 * value
        >>> leave_uncompiled()
        >>> Doubling().double(2)
        4
    """
    def put_off(method: F) -> F:
        return cast(F, _Uncompiled(method, recursive))

    return put_off


def leave_uncompiled() -> None:
    """Excludes what was put off.

    It imports the compiler, as the first optimizer does, which takes ten times as long as importing this package; so
    it is called when something is built that may be compiled, and not by command lines that only read configs.
    """
    while _PUT_OFF:
        owner, name, recursive = _PUT_OFF.pop()
        method: Any = torch.compiler.disable(vars(owner)[name], recursive=recursive)
        setattr(owner, name, method)
