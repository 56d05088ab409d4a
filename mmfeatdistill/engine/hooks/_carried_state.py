"""What a training changes besides tensors of the state dict: counters, sizes, caches, generators, switches."""
import random
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from types import FunctionType, ModuleType
from typing import Any, Optional

import numpy as np
import torch
from torch import nn

_NO_OTHER_MODULES = ('model', 'student', 'hooks')
"""Roots below which a module counts only where it is registered: it may be a teacher."""

_INTERNALS = frozenset(vars(nn.Module()))
"""Attributes of every module, among them ``training``, which the loops set."""

_FOREIGN = {*sys.stdlib_module_names, 'torch', 'numpy', 'cv2', 'PIL', 'pycocotools', 'matplotlib', 'mmengine',
            'mmfeatdistill'}
"""Packages whose plain objects are not looked into: what they hold is no state of a training, or saved elsewhere."""

_LIMIT = 200_000
"""Values, or thousands of bytes of arrays, of what is looked at for changes: annotations are larger, and fixed."""

_DEPTH = 40
_WIDTH = 1000
_CONTAINERS: dict[str, Callable[[Iterable], Any]] = {'list': list, 'tuple': tuple, 'set': set, 'deque': deque}
_MAPPINGS = (dict, OrderedDict, defaultdict)
_TREES = (list, tuple, deque, *_MAPPINGS)


class NotPlainError(TypeError):
    """A value that is no plain data."""


class _TooLargeError(ValueError):
    """More than what is looked at for changes."""


@dataclass
class _Record:
    """An object as it was first met.

    Attributes:
        owner: The object.
        before: Its attributes that hold data, encoded.
        links: Names of its attributes that are, or hold, something else.
        names: Names of all its attributes.
        replaced: Whether it has taken another's place since the start.
    """

    owner: Any
    before: dict[str, Any]
    links: list[str]
    names: set[str]
    replaced: bool


class CarriedState:
    """The attributes of some objects, and of what they consist of, that change while training.

    Objects are known by the names that lead to them. Only what has changed is saved: the rest is what the config says,
    also where that is edited between two runs.

    Args:
        roots (dict): Objects by name.
    """

    def __init__(self, roots: dict[str, Any]) -> None:
        self._roots = roots
        self._records: dict[str, _Record] = {}
        self.iterators: list[str] = []
        """Names of iterators, whose position nobody can read."""
        self.meet(replaced=False)

    def meet(self, replaced: bool = True, late: bool = False) -> None:
        """Takes note of objects that were not there before, such as those of a pipeline that a hook has put in.

        Args:
            replaced (bool): Whether they stand where others stood when the training began. Defaults to True.
            late (bool): Whether training has gone on since they came, so all they hold may have changed.
        """
        known, self._records, self.iterators = self._records, {}, []
        seen: set[int] = set()
        registered = {id(module) for root in self._roots.values() if isinstance(root, nn.Module)
                      for module in root.modules()}
        stack = list(reversed(self._roots.items()))
        while stack:
            path, value = stack.pop()
            if id(value) in seen:
                continue
            seen.add(id(value))
            if isinstance(value, _TREES):
                items = value.items() if isinstance(value, _MAPPINGS) else enumerate(value)
                stack += [(f'{path}.{name}', item) for name, item in reversed(list(islice(items, _WIDTH)))]
                continue
            if isinstance(value, Iterator) and not hasattr(value, '__dict__'):
                self.iterators.append(path)
            hidden = path.partition('.')[0] in _NO_OTHER_MODULES and '.data_preprocessor.' not in path
            if not _has_attributes(value) or (isinstance(value, nn.Module) and hidden and id(value) not in registered):
                continue
            record = known.get(path)
            if record is None or record.owner is not value:
                record = _first_met(value, replaced, late)
            self._records[path] = record
            now = {**_attributes(value), **getattr(value, '_modules', {})}
            stack += [(f'{path}.{name}', now[name]) for name in reversed(record.links) if name in now]

    def changed(self) -> tuple[dict[str, Any], list[str]]:
        """What has changed, as plain data.

        Returns:
            tuple: By name of the object: its class, whether it was replaced, its changed attributes; and the names of
            attributes that have become something that cannot be saved.
        """
        saved, lost = {}, []
        for path, record in self._records.items():
            now, attributes = _attributes(record.owner), {}
            for name in record.before.keys() & now.keys():
                try:
                    value = encode(now[name], objects=True)
                except NotPlainError:
                    lost.append(f'{path}.{name}')
                    continue
                # Flags of hooks say what a hook has done to objects that are built anew.
                if not same(value, record.before[name]) and not (
                        path.startswith('hooks.') and isinstance(value, bool)):
                    attributes[name] = value
            for name in now.keys() - record.names:  # set for the first time
                try:
                    attributes[name] = encode(now[name], objects=True)
                except NotPlainError:
                    lost.append(f'{path}.{name}')
            if attributes or record.replaced:
                saved[path] = (_name(type(record.owner)), record.replaced, attributes)
        return saved, lost

    def restore(self, saved: dict[str, Any], replaced: bool) -> list[str]:
        """Puts back what was saved.

        Args:
            saved (dict): Of :meth:`changed`.
            replaced (bool): Whether of objects that had taken another's place, or of the others.

        Returns:
            list[str]: Names of objects that are not there, or are others.
        """
        missing = []
        for path, (kind, was_replaced, attributes) in saved.items():
            if was_replaced != replaced:
                continue
            record = self._records.get(path)
            if record is None or _name(type(record.owner)) != kind or record.replaced != replaced:
                missing.append(path)
                continue
            for name, value in attributes.items():
                try:
                    _assign(record.owner, name, value)
                except NotPlainError:
                    missing.append(f'{path}.{name}')
        return missing

    def own_generators(self) -> list[str]:
        """Names of random generators other than those of the process."""
        return [f'{path}.{name}' for path, record in self._records.items() for name, value in record.before.items()
                if isinstance(value, tuple) and value[0] == 'random']


def encode(value: Any, objects: bool = False, limit: Optional[int] = None) -> Any:
    """A value as constants, tensors, arrays, tuples and lists, which a checkpoint may hold.

    Args:
        value (Any): The value.
        objects (bool): Whether it may hold objects, as a cache does that keeps boxes. Defaults to False.
        limit (int, optional): The largest number of values.

    Raises:
        NotPlainError: It is no plain data.
    """
    left = [sys.maxsize if limit is None else limit]

    def of(value: Any, depth: int) -> Any:
        left[0] -= 1 + (value.nbytes // 1000 if isinstance(value, (torch.Tensor, np.ndarray)) else 0)
        if left[0] < 0:
            raise _TooLargeError
        if depth > _DEPTH:
            raise NotPlainError
        kind = type(value)
        if value is None or kind in (bool, int, float, complex, str, bytes):
            return value
        if kind is torch.Tensor and not value.requires_grad:
            return 'tensor', value.detach().cpu().clone(), value.device.type
        if isinstance(value, np.generic) or (kind is np.ndarray and value.dtype != object):
            return 'array', np.array(value), isinstance(value, np.generic)
        if kind.__name__ in _CONTAINERS and kind is _CONTAINERS[kind.__name__]:
            return kind.__name__, [of(item, depth + 1) for item in value], getattr(value, 'maxlen', None)
        if kind in _MAPPINGS:
            name = kind.__name__ if kind is not defaultdict else _factory(value)
            return 'dict', [(of(key, depth + 1), of(item, depth + 1)) for key, item in value.items()], name
        state = _random_state(value)
        if state is not None:
            return 'random', kind.__name__, of(state, depth + 1)
        if objects and _is_data_object(value):
            return 'object', _name(kind), of(vars(value), depth + 1)
        raise NotPlainError

    return of(value, 0)


def decode(value: Any) -> Any:
    """The inverse of :func:`encode`; runs no code of the classes that it finds.

    Raises:
        NotPlainError: A class is not imported, or cannot be made without running its code.
    """
    if not isinstance(value, tuple):
        return value
    kind, content, more = value
    if kind == 'tensor':
        return content.to(content.device if more == 'cpu' else more)
    if kind == 'array':
        return content[()] if more else content
    if kind == 'deque':
        return deque(map(decode, content), maxlen=more)
    if kind in _CONTAINERS:
        return _CONTAINERS[kind](map(decode, content))
    if kind == 'dict':
        mapping: dict = _FACTORIES[more]() if more in _FACTORIES else OrderedDict() if more == 'OrderedDict' else {}
        mapping.update((decode(key), decode(item)) for key, item in content)
        return mapping
    if kind == 'random':
        return _generator(content, decode(more))
    module, _, name = content.partition(':')
    cls = sys.modules.get(module)
    for part in name.split('.'):
        cls = getattr(cls, part, None)
    if not isinstance(cls, type) or hasattr(cls, '__del__') or cls.__new__ is not object.__new__:
        raise NotPlainError
    made = object.__new__(cls)
    made.__dict__.update(decode(more))
    return made


_FACTORIES: dict[str, Callable[[], defaultdict]] = {
    f'defaultdict of {kind.__name__}': partial(defaultdict, kind) for kind in (list, dict, set, int, float, str)}


def _factory(value: defaultdict) -> str:
    """What a defaultdict is called in a file; those with other factories cannot be saved."""
    name = f"defaultdict of {getattr(value.default_factory, '__name__', '')}"
    if name not in _FACTORIES or _FACTORIES[name]().default_factory is not value.default_factory:
        raise NotPlainError
    return name


def _has_attributes(value: Any) -> bool:
    """Whether a value is an object that consists of others."""
    if isinstance(value, (nn.Module, torch.utils.data.Dataset, torch.utils.data.Sampler)):
        return True
    return (hasattr(value, '__dict__') and not isinstance(value, (type, FunctionType, ModuleType, torch.Tensor))
            and (type(value).__module__.partition('.')[0] not in _FOREIGN
                 or type(value).__module__ == 'mmengine.dataset.base_dataset'
                 or type(value).__module__.startswith('mmengine.hooks.')))


def _is_data_object(value: Any) -> bool:
    cls = type(value)
    return (hasattr(value, '__dict__') and not isinstance(value, (type, FunctionType, ModuleType, nn.Module))
            and not isinstance(value, torch.Tensor) and not hasattr(cls, '__del__')
            and cls.__new__ is object.__new__ and not any(vars(base).get('__slots__') for base in cls.__mro__))


def _attributes(owner: Any) -> dict[str, Any]:
    """What may change in an object and is in no state dict."""
    if not isinstance(owner, nn.Module):
        return dict(vars(owner))
    if type(owner).__module__.partition('.')[0] == 'mmfeatdistill':
        own: dict[str, Any] = {}  # ours keep their state in buffers
    else:
        own = {name: value for name, value in vars(owner).items() if name not in _INTERNALS}
    own.update((name, owner._buffers[name]) for name in owner._non_persistent_buffers_set)
    own.update((f'{name}.requires_grad', value.requires_grad)
               for name, value in owner._parameters.items() if value is not None)
    return own


def _first_met(owner: Any, replaced: bool, late: bool) -> _Record:
    attributes = _attributes(owner)
    record = _Record(owner, {}, [], set(attributes), replaced)
    for name, item in attributes.items():
        try:
            record.before[name] = encode(item, limit=_LIMIT)
        except NotPlainError:
            record.links.append(name)
        except _TooLargeError:
            pass
    if late:
        record.names -= record.before.keys()
        record.before = {}
    record.links += getattr(owner, '_modules', {})
    return record


def _assign(owner: Any, name: str, encoded: Any) -> None:
    """Sets an attribute; a container or generator that others may share keeps its identity."""
    value = decode(encoded)
    if isinstance(owner, nn.Module) and name.endswith('.requires_grad'):
        owner._parameters[name.removesuffix('.requires_grad')].requires_grad_(value)  # type: ignore[union-attr]
        return
    table = owner._buffers if isinstance(owner, nn.Module) and name in owner._buffers else vars(owner)
    now = table.get(name)
    state = _random_state(now) if type(now) is type(value) else None
    if state is not None:
        _set_random_state(now, _random_state(value))
    elif isinstance(now, (list, deque)) and isinstance(value, (list, deque)):
        now.clear()
        now.extend(value)
    elif isinstance(now, (dict, set)) and isinstance(value, (dict, set)):
        now.clear()
        now.update(value)  # type: ignore[arg-type]
    else:
        table[name] = value.to(now.device) if torch.is_tensor(value) and torch.is_tensor(now) else value


def _random_state(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return generator.getstate() if type(generator) is random.Random else None


def _set_random_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


def _generator(kind: str, state: Any) -> Any:
    if kind == 'Generator' and isinstance(state, dict):
        made: Any = np.random.Generator(getattr(np.random, state['bit_generator'])())
    else:
        made = {'Generator': torch.Generator, 'RandomState': np.random.RandomState, 'Random': random.Random}[kind]()
    _set_random_state(made, state)
    return made


def _name(cls: type) -> str:
    return f'{cls.__module__}:{cls.__qualname__}'


def same(first: Any, second: Any) -> bool:
    """Whether two encoded values are equal."""
    if type(first) is not type(second):
        return False
    if isinstance(first, (tuple, list)):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()
    return first == second or first != first
