"""Errors for people: which config key, what was given, what would do."""
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


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
        raise ConfigError(f'{key}: {str(text) or _origin(error)}') from error


def _origin(error: Exception) -> str:
    """The line that raised an error without a text."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f'{type(error).__name__} at {frame.line!r} ({frame.filename}:{frame.lineno}).'


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
