"""Keeping functions out of ``torch.compile`` without importing the compiler, which takes longer than all else here."""
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, Optional, TypeVar

import torch

F = TypeVar('F', bound=Callable)


def uncompiled(recursive: bool) -> Callable[[F], F]:
    """``torch.compiler.disable``, put off to the first call that finds the compiler imported.

    Args:
        recursive (bool): Whether what the function calls stays uncompiled, too.

    Returns:
        Callable: A decorator.

    Examples:
        >>> @uncompiled(recursive=True)
        ... def double(value):
        ...     return 2 * value
        >>> double(2)
        4
    """
    def decorate(function: F) -> F:
        disabled: Optional[Callable] = None

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal disabled
            if disabled is None:
                if 'torch._dynamo' not in sys.modules:
                    return function(*args, **kwargs)
                disabled = torch.compiler.disable(function, recursive=recursive)
            return disabled(*args, **kwargs)

        # By this a graph ends at the call already.
        call._torchdynamo_disable = True  # type: ignore[attr-defined]
        return call  # type: ignore[return-value]

    return decorate
