"""What makes a frozen teacher cheaper to run, and how far its features then are from what they were."""
import inspect
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Optional, Union

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.registry import check_options
from mmfeatdistill.taps.reader import Features
from mmfeatdistill.taps.tap import Tap
from mmfeatdistill.teacher.conv_bn_fusion import fuse, fusible
from mmfeatdistill.teacher.side_stream import SideStream

_DTYPES = dict(bfloat16=torch.bfloat16, float16=torch.float16)


class Acceleration:
    """Options that a teacher may have, each off unless asked for.

    Features leave the teacher in the precision that its own weights had, so losses compute as before.

    Args:
        fuse_conv_bn (bool): Whether batch normalizations are fused into the convolutions before them, where no tap
            reads in between. Equal up to rounding. Defaults to False.
        channels_last (bool): Whether images and weights lie in memory channel by channel of each pixel, which tensor
            cores and some CPUs prefer. Equal up to rounding. Defaults to False.
        dtype (str, optional): ``'bfloat16'`` or ``'float16'``: the precision of weights and activations. Defaults to
            None: as they are.
        compile (bool | dict): Whether the parts between the taps are compiled, or the options of ``torch.compile``.
            Defaults to False.
        side_stream (bool): Whether the teacher runs on a CUDA stream of its own, so that it overlaps the student's
            forward. Equal; its activations are no longer freed before the student's are made, so both take memory at
            once. Defaults to False.
        key (str): Where the options stand in the config.

    Attributes:
        difference (float): By how much :meth:`apply` has changed the features of a small image: the largest difference
            over the feature's largest value.

    Raises:
        ConfigError: An option of another type or value.
    """

    def __init__(self, fuse_conv_bn: bool = False, channels_last: bool = False, dtype: Optional[str] = None,
                 compile: Union[bool, Mapping] = False, side_stream: bool = False, *, key: str) -> None:
        flags = dict(fuse_conv_bn=fuse_conv_bn, channels_last=channels_last, side_stream=side_stream)
        for name, value in flags.items():
            if not isinstance(value, bool):
                raise ConfigError(f'{key}.{name}: expected True or False, got {value!r}.')
        if dtype is not None and dtype not in list(_DTYPES):
            raise ConfigError(f"{key}.dtype: expected {' or '.join(map(repr, _DTYPES))} or None, got {dtype!r}.")
        if not isinstance(compile, (bool, Mapping)):
            raise ConfigError(f'{key}.compile: expected True, False or a dict with the options of torch.compile, got '
                              f'{compile!r}.')
        self._key = key
        self._fuse_conv_bn, self._channels_last = fuse_conv_bn, channels_last
        self._dtype = _DTYPES[dtype] if dtype is not None else None
        self._compile = compile
        self._side_stream = SideStream() if side_stream else None
        self.difference = 0.0
        self._dtypes: Optional[tuple[torch.dtype, torch.dtype]] = None  # before and after

    @classmethod
    def from_config(cls, cfg: Any, key: str) -> 'Acceleration':
        """Builds it from its config.

        Args:
            cfg (dict, optional): The options; None for none.
            key (str): Where it stands in the config.

        Returns:
            Acceleration: The options.

        Raises:
            ConfigError: It is no dict, or has an unknown key.
        """
        if not isinstance(cfg, Mapping) and cfg is not None:
            raise ConfigError(f'{key}: expected a dict such as dict(fuse_conv_bn=True), got {cfg!r}.')
        options = {name: value for name, value in (cfg or {}).items() if name != '_scope_'}
        check_options(inspect.signature(cls), options, key, found=('key',))
        return cls(**options, key=key)

    @property
    def changes_modules(self) -> bool:
        """Whether the modules do not compute on their own any more what they computed before."""
        return bool(self._fuse_conv_bn or self._dtype or self._compile)

    def apply(self, model: nn.Module, taps: Sequence[Tap], run: Callable[[], Any],
              read: Callable[[], Features]) -> None:
        """Changes a network, and logs by how much its features have changed.

        Args:
            model (nn.Module): The network.
            taps (Sequence[Tap]): What is read of it.
            run: Runs it on a small image, from end to end.
            read: Gives the tapped features of that image.

        Raises:
            ConfigError: The network does not run so.
        """
        if not (self.changes_modules or self._channels_last):
            return
        places = [tap.place for tap in taps]
        before, done = read(), []
        if self._fuse_conv_bn:
            pairs = fusible(model, run, places)
            fuse(model, pairs)
            done.append(f'{len(pairs)} BatchNorms fused')
        if self._channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            done.append('channels last')
        if self._dtype is not None:
            self._dtypes = next(iter(before.values()))[0].dtype, self._dtype
            model.to(self._dtype)
            done.append(f'{self._dtype}'.removeprefix('torch.'))
        if self._compile:
            options = {} if self._compile is True else dict(self._compile)
            parts = list(_parts_between(model, {place.path for place in places}))
            for part in parts:
                try:
                    part.forward = torch.compile(part.forward, **options)  # type: ignore[method-assign]
                except (TypeError, ValueError, RuntimeError) as error:
                    raise ConfigError(f'{self._key}.compile: torch.compile refuses {options}: {error}') from error
            done.append(f'{len(parts)} parts compiled')
        self.difference = _difference(before, self._try(read, done))
        print_log(f'{self._key}: {", ".join(done)}; relative difference of the features of a small image: '
                  f'{self.difference:.1e}.', logger='current', level=logging.INFO)

    def queue(self, inputs: Tensor) -> AbstractContextManager:
        """Where a pass is queued: in parallel with the student with ``side_stream``, otherwise before it.

        Args:
            inputs (Tensor): The batch.

        Returns:
            AbstractContextManager: In which the pass is queued.

        Raises:
            ConfigError: ``side_stream`` without a CUDA device.
        """
        if self._side_stream is None:
            return nullcontext()
        if inputs.device.type != 'cuda':
            raise ConfigError(f'{self._key}.side_stream: needs a CUDA device, but this training runs on '
                              f'{str(inputs.device)!r}, where nothing can overlap; remove it here.')
        return self._side_stream.parallel(inputs)

    def join(self, outputs: Iterable[Tensor]) -> None:
        """Lets what follows wait for passes that were queued in parallel.

        Args:
            outputs (Iterable[Tensor]): What they give.
        """
        if self._side_stream is not None:
            self._side_stream.join(outputs)

    def inputs(self, inputs: Tensor) -> Tensor:
        """A batch as the network takes it now."""
        if self._dtypes is not None:
            inputs = inputs.to(self._dtypes[1])
        return inputs.contiguous(memory_format=torch.channels_last) if self._channels_last else inputs

    def outputs(self, features: Features) -> Features:
        """Features as they would be without the options."""
        if self._dtypes is None:
            return features
        return {tap: [tensor.to(self._dtypes[0]) if tensor.is_floating_point() else tensor for tensor in tensors]
                for tap, tensors in features.items()}

    def _try(self, read: Callable[[], Features], done: Sequence[str]) -> Features:
        try:
            return read()
        except Exception as error:  # noqa: BLE001 - whatever a layer says that cannot run so
            raise ConfigError(f'{self._key}: the teacher does not run with {", ".join(done)} here: '
                              f'{type(error).__name__}: {error}') from error


def _parts_between(module: nn.Module, tapped: Collection[str], prefix: str = '') -> Iterator[nn.Module]:
    """The largest modules without a tap inside; single layers are not worth it."""
    for name, child in module.named_children():
        path = prefix + name
        if any(tap.startswith(f'{path}.') for tap in tapped):
            yield from _parts_between(child, tapped, f'{path}.')
        elif next(child.children(), None) is not None:
            yield child


def _difference(before: Features, after: Features) -> float:
    """The largest difference of a feature over the feature's largest value."""
    pairs = [(a, b) for tap in before for a, b in zip(before[tap], after[tap]) if a.numel()]
    return max((float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)) for a, b in pairs), default=0.0)
