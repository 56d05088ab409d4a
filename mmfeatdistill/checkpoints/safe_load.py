"""Reading checkpoint files: tensors and plain data are taken out of them, and nothing in them is run."""
import codecs
import functools
import hashlib
import os
import os.path as osp
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType
from typing import IO, Any, Optional, Union

import numpy as np
import torch
from mmengine.runner import CheckpointLoader
from mmengine.utils import digit_version

_HAS_SAFE_GLOBALS = digit_version(torch.__version__) >= digit_version('2.6.0')
"""Whether ``torch.load(weights_only=True)`` takes exceptions by name; before, it could also be led astray."""

_TORCH_MAGIC = torch.serialization.MAGIC_NUMBER.to_bytes(10, 'little')
_PUBLISHED = re.compile(r'.*-(?!20\d{6}\.)([0-9a-f]{8})\.pth')
"""How the MM libraries and torchvision name files: the first digits of the SHA-256 at the end; 20240131 is a date."""
_OF_A_TRAINING = re.compile(r'.*(epoch|iter)_\d+-[0-9a-f]{8}\.pth')
"""How mmengine's CheckpointHook names files with ``published_keys``: its digits are not those of the file."""


class CheckpointError(ValueError):
    """A file that is no checkpoint, is broken, or is not the one that was published under its name."""


class UntrustedCheckpointError(CheckpointError):
    """A checkpoint that can be read only by running what is in it."""


class _LeftOut:
    """Stands for what checkpoints of mmengine hold of the log: takes its place, and keeps nothing of it."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


@functools.cache
def _allowed() -> dict[str, Any]:
    """What a checkpoint may name, in addition to what ``weights_only=True`` allows."""
    core = np._core if digit_version(np.__version__) >= digit_version('2.0.0') else np.core  # type: ignore
    allowed: dict[str, Any] = {
        # In `message_hub`; each buffer names its statistics by getattr, which must not be given to any file.
        'mmengine.logging.history_buffer.HistoryBuffer': _LeftOut, 'builtins.getattr': _LeftOut,
        'numpy.ndarray': np.ndarray, 'numpy.dtype': np.dtype, '_codecs.encode': codecs.encode}
    for package in ('core', '_core'):  # NumPy 1 and 2 call it differently
        for name in ('_reconstruct', 'scalar'):
            allowed[f'numpy.{package}.multiarray.{name}'] = getattr(core.multiarray, name)
    kinds = {type(np.dtype(scalar)) for scalar in np.sctypeDict.values()}
    return allowed | {f'numpy.dtypes.{kind.__name__}': kind for kind in kinds}


@contextmanager
def _safe_globals() -> Iterator[None]:
    """What is allowed here and nothing else: while mmengine loads, it allows getattr, and so everything."""
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([(value, path) for path, value in _allowed().items()])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)


_PythonUnpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]
"""The one in Python, as of that in C single steps cannot be replaced."""


class _NarrowPickle:
    """In place of :mod:`pickle` for a PyTorch whose ``weights_only=True`` does not do."""

    class Unpickler(_PythonUnpickler):
        """Finds nothing but what is allowed, and changes nothing that it has found."""

        def find_class(self, module: str, name: str) -> Any:
            """Looks a name up in a table; nothing is imported."""
            path = f'{module}.{name}'.replace('__builtin__.', 'builtins.')
            allowed = torch._weights_only_unpickler._get_allowed_globals() | _allowed() | {
                f'builtins.{plain.__name__}': plain for plain in (set, complex, bytearray)}
            if path not in allowed:
                raise pickle.UnpicklingError(f'GLOBAL {path} is not allowed.')
            return allowed[path]

        def load_build(self) -> None:
            """Gives a new object its state."""
            if isinstance(self.stack[-2], (type, FunctionType, BuiltinFunctionType)):
                raise pickle.UnpicklingError('an attribute of a class or function was to be changed.')
            super().load_build()

        dispatch = {**_PythonUnpickler.dispatch, pickle.BUILD[0]: load_build}

    @staticmethod
    def load(file: IO[bytes], **options: Any) -> Any:
        """As :func:`pickle.load`."""
        return _NarrowPickle.Unpickler(file, **options).load()


def read_checkpoint_file(source: str, weights_only: bool = True) -> Any:
    """Reads a checkpoint without running what is in it.

    Next to tensors and plain data it may hold what checkpoints of mmengine do: arrays and numbers of NumPy, and the
    history of the log, which is left out. Where the name ends in the digits of a hash, as in ``name-0123abcd.pth``,
    the file is compared with it.

    Args:
        source (str): A path, or an address of any scheme that mmengine loads.
        weights_only (bool): Whether to refuse a file that holds more; without, code in it runs. Defaults to True.

    Returns:
        object: What was saved, on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        UntrustedCheckpointError: The file holds more than weights and plain data.
        ValueError: It is no checkpoint, is broken, or is not the one that was published under its name.
    """
    if '://' not in source and not osp.isfile(source):
        folder = ' It is a folder; give a file in it.' if osp.isdir(source) else ''
        raise FileNotFoundError(f'there is no checkpoint {source!r} (looked in {osp.abspath(source)!r}).{folder}')
    with reading_safely(weights_only, source):
        try:
            return CheckpointLoader.load_checkpoint(source, map_location='cpu')
        except CheckpointError:
            raise
        except Exception as error:  # noqa: BLE001 - downloads fail in many ways; all mean the same here
            raise _broken(source, f'{type(error).__name__}: {error}') from error


@contextmanager
def reading_safely(weights_only: bool = True, source: Optional[str] = None) -> Iterator[None]:
    """Within it, whatever the MM libraries load by ``torch.load`` is read as :func:`read_checkpoint_file` reads.

    mmengine's loaders find a file, download it and unpickle it in one go, so only the last part is replaced.

    Args:
        weights_only (bool): See :func:`read_checkpoint_file`. Defaults to True.
        source (str, optional): What the user called the file. Defaults to None: its path.
    """
    original = torch.load

    def load(file: Union[str, 'os.PathLike[str]', IO[bytes]], *args: Any, **kwargs: Any) -> Any:
        path = osp.abspath(os.fspath(file)) if isinstance(file, (str, os.PathLike)) else None
        name = source or path or 'the file'
        if isinstance(file, (str, os.PathLike)):
            with open(file, 'rb') as opened:
                _check_content(opened, name, path)
        else:
            _check_content(file, name, path)
            file.seek(0)
        try:
            if not weights_only:
                return original(file, map_location='cpu', weights_only=False)
            if not _HAS_SAFE_GLOBALS:
                return original(file, map_location='cpu', weights_only=False, pickle_module=_NarrowPickle)
            with _safe_globals():
                return original(file, map_location='cpu', weights_only=True)
        except pickle.UnpicklingError as error:
            raise _untrusted(name, error) from error
        except Exception as error:  # noqa: BLE001 - a broken file shows in many ways; all mean the same here
            raise _broken(name, f'{type(error).__name__}: {error}') from error

    torch.load = load
    try:
        yield
    finally:
        torch.load = original


def _check_content(file: IO[bytes], source: str, path: Optional[str]) -> None:
    """Refuses what torch.save has not written, and what is not the file of its name."""
    if not _is_checkpoint(file):
        if _is_program(_names_in(file)):
            raise _broken(source, 'it is a TorchScript program, which torch.jit.save has written; reading it would run '
                          'it. Save its weights where you trust it: '
                          f"torch.save(torch.jit.load({source!r}).state_dict(), 'weights.pth').")
        file.seek(0)
        head, size = file.read(16), file.seek(0, os.SEEK_END)
        raise _broken(source, f'expected a complete file that torch.save has written, found {size} bytes that begin '
                      f'with {head!r}. Download or copy it again, or save the weights in it by torch.save.')
    name = osp.basename(path or source)
    published = _PUBLISHED.fullmatch(name)
    if published is None or _OF_A_TRAINING.fullmatch(name):
        return
    found = _sha256(file)
    if not found.startswith(published[1]):
        place = '' if path is None or path == osp.abspath(source) else f' Remove {path} and'
        raise CheckpointError(
            f'{source!r} is not the file that was published under this name: its SHA-256 should begin with '
            f'{published[1]} and begins with {found[:8]}.{place or " Either"} download it again, or, if it is what you '
            f'want, give the path of a copy whose name does not end in -{published[1]}.')


def _is_checkpoint(file: IO[bytes]) -> bool:
    """Whether a file is what torch.save writes: a zip archive around a pickle, or in older files the pickle alone."""
    file.seek(0)
    head = file.read(32)
    if not head.startswith(b'PK\x03\x04'):
        return _TORCH_MAGIC in head
    return 'data.pkl' in (names := _names_in(file)) and not _is_program(names)


def _is_program(names: set[str]) -> bool:
    """Whether an archive is a TorchScript program, which has constants too; torch would run it."""
    return {'data.pkl', 'constants.pkl'} <= names


def _names_in(file: IO[bytes]) -> set[str]:
    """The files in a zip archive; none in what is no complete one."""
    try:
        return {osp.basename(name) for name in zipfile.ZipFile(file).namelist()}
    except zipfile.BadZipFile:
        return set()


def _sha256(file: IO[bytes]) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while part := file.read(1 << 20):
        digest.update(part)
    return digest.hexdigest()


def _broken(source: str, problem: str) -> CheckpointError:
    return CheckpointError(f'{source!r} cannot be read as a checkpoint: {problem}')


def _untrusted(source: str, error: Exception) -> UntrustedCheckpointError:
    named = re.search(r'GLOBAL (\S+)', str(error))
    reason = f'it asks for {named[1]}' if named else str(error).splitlines()[-1].rstrip('.')
    return UntrustedCheckpointError(
        f'{source!r} holds more than weights and plain data: {reason}. Loading that would run code of the choice of '
        'whoever made the file. If you trust them, set weights_only=False (for a teacher in model.teacher, for '
        f'load_from in StudentCheckpointHook), or save it anew without that: saved = torch.load({source!r}, '
        "weights_only=False); torch.save({key: saved[key] for key in ('state_dict', 'meta') if key in saved}, "
        "'weights.pth').")
