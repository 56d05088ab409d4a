"""Errors for people: which config key, what was given, what would do."""
import re
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import metadata
from typing import Optional


class ConfigError(ValueError):
    """A config that cannot be built; the message starts with the config key."""


@contextmanager
def config_key(key: str) -> Iterator[None]:
    """Names the config key in whatever error a part of the config causes.

    Args:
        key (str): For example ``'model.objectives.fpn.taps'``.

    Raises:
        ConfigError: In place of a ValueError, TypeError, KeyError, ImportError or OSError from within, or of
            an AssertionError, by which the MM libraries refuse configs.

    Examples:
        >>> with config_key('model.teacher'):
        ...     raise ValueError('not like this.')
        Traceback (most recent call last):
        mmfeatdistill.errors.ConfigError: model.teacher: not like this.
    """
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, TypeError, KeyError, ImportError, OSError, AssertionError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise ConfigError(f'{key}: {failed_import(error) or str(text) or _origin(error)}') from error


def _origin(error: Exception) -> str:
    """The line that raised an error without a text."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f'{type(error).__name__} at {frame.line!r} ({frame.filename}:{frame.lineno}).'


def failed_import(error: BaseException) -> Optional[str]:
    """What is wrong where importing a package has failed; mmengine imports the libraries when it builds from them.

    Args:
        error (BaseException): As it was caught, wherever.

    Returns:
        str: Which package could not be imported, next to which versions; None where nothing was being imported.
    """
    seen: Optional[BaseException] = error
    while seen is not None:
        frames = [frame for frame in traceback.extract_tb(seen.__traceback__) if frame.name == '<module>']
        packages = list(dict.fromkeys(name for frame in frames if (name := _package(frame.filename))))
        if packages:
            return _explain_import(packages, seen)
        seen = seen.__cause__
    return None


def _explain_import(packages: list[str], error: BaseException) -> str:
    last = f'{type(error).__name__}: {error}'
    for name, below in _SERVING.items():
        found = _version(name)
        if packages[-1] in (name, 'mmpretrain') and 'mmpretrain' in packages and found is not None:
            if int(found.partition('.')[0]) >= below:
                return (f'{packages[-1]} {_version(packages[-1]) or ""} cannot be imported next to {name} {found} '
                        f"({last}): it needs an earlier one; pip install '{name}<{below}'.")
    chain = ', imported by '.join(f'{name} {_version(name) or ""}'.rstrip() for name in reversed(packages))
    return (f'{chain}, cannot be imported ({last}). The package, or one that it imports, is broken, or of a version '
            f"that does not go with the others; python -c 'import {packages[-1]}' shows where it fails.")


_SERVING = {'transformers': 5}
"""Packages whose versions from this one on mmpretrain 1.x cannot be imported next to."""


def _package(filename: str) -> Optional[str]:
    found = re.search(r'[/\\](?:site|dist)-packages[/\\](\w+)', filename)
    return found[1] if found else None


def _version(package: str) -> Optional[str]:
    """Of the distribution, of whatever name, that gives an importable package."""
    try:
        names = metadata.packages_distributions().get(package, [package])  # a slow search, for an error only
        return metadata.version(names[0])
    except (metadata.PackageNotFoundError, AttributeError):
        return None


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The end of an error message: ``'. Did you mean ...?'``, or a full stop if nothing is near.

    Args:
        given (str): What the user wrote.
        known (Iterable[str]): What exists.

    Returns:
        str: Text to append to a sentence that has no full stop yet.

    Examples:
        >>> did_you_mean('nek', ['neck', 'backbone'])
        ". Did you mean 'neck'?"
        >>> did_you_mean('nek', ['head'])
        '.'
    """
    near = get_close_matches(given, list(known), n=3, cutoff=0.6)
    return f'. Did you mean {" or ".join(map(repr, near))}?' if near else '.'
