"""What makes a frozen teacher cheaper to run, and how far its features then are from what they were."""
import inspect
import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Optional, Union

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmfeatdistill.errors import ConfigError
from mmfeatdistill.registry import check_options
from mmfeatdistill.taps.reader import Features
from mmfeatdistill.taps.tap import Tap
from mmfeatdistill.teacher.conv_bn_fusion import fuse, fusible
from mmfeatdistill.teacher.packed_convolutions import PackedConvolutions, can_pack
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
        packed_for (Sequence[int], optional): The shape (N, C, H, W) of the batches for which the weights of
            convolutions are laid out beforehand as a CPU computes with them (see
            :class:`mmfeatdistill.teacher.packed_convolutions.PackedConvolutions`). Equal up to rounding; batches of
            other sides take longer. Defaults to None: laid out anew in every pass.
        key (str): Where the options stand in the config.

    Attributes:
        difference (float): By how much :meth:`apply` has changed the features of a small image: the largest difference
            over the feature's largest value.

    Raises:
        ConfigError: An option of another type or value.
    """

    def __init__(self, fuse_conv_bn: bool = False, channels_last: bool = False, dtype: Optional[str] = None,
                 compile: Union[bool, Mapping] = False, side_stream: bool = False,
                 packed_for: Optional[Sequence[int]] = None, *, key: str) -> None:
        flags = dict(fuse_conv_bn=fuse_conv_bn, channels_last=channels_last, side_stream=side_stream)
        for name, value in flags.items():
            if not isinstance(value, bool):
                raise ConfigError(f'{key}.{name}: expected True or False, got {value!r}.')
        if dtype is not None and dtype not in list(_DTYPES):
            raise ConfigError(f"{key}.dtype: expected {' or '.join(map(repr, _DTYPES))} or None, got {dtype!r}.")
        if not isinstance(compile, (bool, Mapping)):
            raise ConfigError(f'{key}.compile: expected True, False or a dict with the options of torch.compile, got '
                              f'{compile!r}.')
        if packed_for is not None:
            _check_packed_for(packed_for, dtype, f'{key}.packed_for')
        self._key = key
        self._packed_for = None if packed_for is None else tuple(packed_for)
        self._packed: Optional[PackedConvolutions] = None
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
            cfg (dict | str, optional): The options; None for none, as at first with ``'auto'``.
            key (str): Where it stands in the config.

        Returns:
            Acceleration: The options.

        Raises:
            ConfigError: It is no dict, or has an unknown key.
        """
        if cfg == 'auto':
            cfg = None
        if not isinstance(cfg, Mapping) and cfg is not None:
            raise ConfigError(f"{key}: expected a dict such as dict(fuse_conv_bn=True), 'auto' or None, got {cfg!r}.")
        options = {name: value for name, value in (cfg or {}).items() if name != '_scope_'}
        check_options(inspect.signature(cls), options, key, found=('key',))
        return cls(**options, key=key)

    @property
    def changes_modules(self) -> bool:
        """Whether the modules do not compute on their own any more what they computed before."""
        return bool(self._fuse_conv_bn or self._dtype or self._compile or self._packed_for)

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
        if not (self._fuse_conv_bn or self._channels_last or self._dtype or self._compile):
            return
        before = read()
        done = self.change(model, taps, run)
        self._dtypes = None if self._dtype is None else (next(iter(before.values()))[0].dtype, self._dtype)
        self.difference = difference(before, self._try(read, done))
        print_log(f'{self._key}: {", ".join(done)}; relative difference of the features of a small image: '
                  f'{self.difference:.1e}.', logger='current', level=logging.INFO)

    def change(self, model: nn.Module, taps: Sequence[Tap], run: Callable[[], Any]) -> list[str]:
        """Changes a network.

        Args:
            model (nn.Module): The network.
            taps (Sequence[Tap]): What is read of it.
            run: Runs it on a small image, from end to end.

        Returns:
            list[str]: What was done, in words.

        Raises:
            ConfigError: ``torch.compile`` refuses its options.
        """
        places, done = [tap.place for tap in taps], []
        if self._fuse_conv_bn:
            pairs = fusible(model, run, places)
            fuse(model, pairs)
            done.append(f'{len(pairs)} BatchNorms fused')
        if self._channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            done.append('channels last')
        if self._dtype is not None:
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
        return done

    def packs_for(self, inputs: Any) -> bool:
        """Whether weights are to be laid out, and this is the first batch of the size in question.

        Args:
            inputs (Tensor): A batch of the network, shape (N, C, H, W).
        """
        return (self._packed_for is not None and self._packed is None
                and tuple(inputs.shape[1:]) == self._packed_for[1:])

    def pack(self, model: nn.Module, inputs: Tensor, shown: int, run: Callable[[], Any]) -> None:
        """Lays weights out.

        Args:
            model (nn.Module): The network.
            inputs (Tensor): A batch for which :meth:`packs_for` holds.
            shown (int): How many of its images ``run`` shows.
            run: Runs the network on them.

        Raises:
            ConfigError: ``packed_for`` on another device than a CPU.
        """
        if inputs.device.type != 'cpu':
            raise ConfigError(f'{self._key}.packed_for: is for a CPU, but this training runs on '
                              f'{str(inputs.device)!r}; remove it here.')
        assert self._packed_for is not None
        self._packed = PackedConvolutions(model, run, self._packed_for[0], shown)

    @contextmanager
    def unpacked(self) -> Iterator[None]:
        """The weights as they were, to be moved or converted; afterwards they are laid out again, if still possible."""
        if self._packed is not None:
            self._packed.unpack()
        yield
        if self._packed is not None and not self._packed.pack():
            self._packed = None

    def undo(self, model: nn.Module, before: 'Snapshot') -> None:
        """Makes a network what it was, bit for bit.

        Args:
            model (nn.Module): As :meth:`change` and :meth:`pack` have left it.
            before (Snapshot): Of it, taken before.
        """
        if self._packed is not None:
            self._packed.unpack()
            self._packed = None
        before.restore()
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

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
        if self._channels_last:  # losses compare them with a student's, of which the rows lie in memory
            features = {tap: [tensor.contiguous() for tensor in tensors] for tap, tensors in features.items()}
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


class Snapshot:
    """The parameters and children that the modules of a network have, without copying them.

    Args:
        model (nn.Module): The network.
    """

    def __init__(self, model: nn.Module) -> None:
        self._held = [(module, dict(module._parameters), dict(module._modules)) for module in model.modules()]

    def restore(self) -> None:
        """Gives the modules back what they had."""
        for module, parameters, children in self._held:
            module._parameters.update(parameters)
            module._modules.update(children)


def _check_packed_for(given: Any, dtype: Optional[str], key: str) -> None:
    is_shape = (isinstance(given, Sequence) and len(given) == 4
                and all(isinstance(side, int) and side > 0 for side in given))
    if not is_shape:
        raise ConfigError(f'{key}: expected the shape of a batch, such as (16, 3, 224, 224), got {given!r}.')
    if dtype is not None:
        raise ConfigError(f'{key}: is for single precision; leave dtype={dtype!r} or this out.')
    if not can_pack():
        raise ConfigError(f'{key}: this PyTorch has no oneDNN, or one without packed weights; leave it out.')


def _parts_between(module: nn.Module, tapped: Collection[str], prefix: str = '') -> Iterator[nn.Module]:
    """The largest modules without a tap inside; single layers are not worth it."""
    for name, child in module.named_children():
        path = prefix + name
        if any(tap.startswith(f'{path}.') for tap in tapped):
            yield from _parts_between(child, tapped, f'{path}.')
        elif next(child.children(), None) is not None:
            yield child


def difference(before: Features, after: Features) -> float:
    """The largest difference of a feature over the feature's largest value.

    Args:
        before (Features): Tensors by tap.
        after (Features): The same of another pass.

    Returns:
        float: 0 where there is nothing to compare, infinity where something is NaN.
    """
    pairs = [(a, b) for tap in before for a, b in zip(before[tap], after[tap]) if a.numel()]
    found = [float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)) for a, b in pairs]
    return math.inf if any(map(math.isnan, found)) else max(found, default=0.0)
