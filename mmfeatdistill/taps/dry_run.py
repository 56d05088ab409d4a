"""The dry run: which features a model gives, found before anything is trained."""
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, Optional

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmfeatdistill.taps.dummy_batch import dummy_images, unlabeled_sample
from mmfeatdistill.taps.isolation import eval_isolated, random_states
from mmfeatdistill.taps.layout import Layout, find_layout, to_map, without_last_extra
from mmfeatdistill.taps.reader import Features, TappedPass, TapReader
from mmfeatdistill.taps.tap import TapsNotReached
from mmfeatdistill.taps.tracing import Call
from mmfeatdistill.taps.tracing import trace as trace_run

Entry = Literal['extract_feat', 'tensor']
"""How a model is run: its feature extraction, or its entire forward without losses."""

_EXTRACTORS = ('backbone', 'neck')
"""The children that feature extraction runs in all libraries."""

SIZES = (64, 224, 512)
"""Sides of the square dry-run image; the larger are for models that fail on smaller images."""


class _Arrived(BaseException):
    """Ends a forward pass at the first convolution; no ``except Exception`` on the way may swallow it."""


def image_channels(model: nn.Module) -> Optional[int]:
    """How many channels the images have that a network takes.

    That is what its first convolution takes, unless the stem stacks neighboring pixels, as YOLOX's does, in which case
    an image of three channels arrives there with more.

    Args:
        model (nn.Module): An MM model; it is left as it was.

    Returns:
        int: None where it has no convolution.

    Examples:
        >>> image_channels(nn.Conv2d(1, 8, 3)), image_channels(nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 8, 3)))
        (1, 3)
    """
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        return None
    if first.in_channels == 3:
        return 3
    arrived: list[int] = []

    def stop(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        arrived.append(inputs[0].shape[-3])
        raise _Arrived

    handle = first.register_forward_pre_hook(stop)
    try:
        with eval_isolated(model):
            images = dummy_images(3, SIZES[0], SIZES[0], like=next(model.parameters(), None))
            (model.extract_feat if hasattr(model, 'extract_feat') else model)(images)
    except (_Arrived, Exception):  # noqa: BLE001, whatever fails before that convolution is none of what is asked
        pass
    finally:
        handle.remove()
    return 3 * first.in_channels // arrived[0] if arrived else first.in_channels


def run_entry(model: nn.Module, entry: Entry, inputs: Tensor, data_samples: Any) -> Any:
    """Runs a model through one of its entries.

    Args:
        model (nn.Module): An MM model.
        entry (str): ``'extract_feat'``, or ``'tensor'`` for ``forward(mode='tensor')``.
        inputs (Tensor): A batch as the data preprocessor gives it, shape (N, C, H, W).
        data_samples (list, optional): Its data samples.

    Returns:
        Any: What the model returns.
    """
    if entry == 'extract_feat':
        return model.extract_feat(inputs)
    return model(inputs, data_samples, mode='tensor')


def probe(model: nn.Module, reader: TapReader, sizes: Sequence[int] = SIZES) -> tuple[TappedPass, Entry]:
    """Runs a model on small images to find the shapes and layouts of its tapped features.

    One image is square. Two others, twice as high, show which dimensions are positions (see
    :func:`mmfeatdistill.taps.layout.find_layout`); the reader turns features into maps from then on. The model is left
    as it was: it runs in eval mode without gradient, statistics and random states do not change.

    Args:
        model (nn.Module): An MM model.
        reader (TapReader): Taps of this model; learns what it needs to know for later passes.
        sizes (Sequence[int]): Sides of the square image, the first of them that the model takes. Defaults to 64, 224
            and 512, and then those that the network names itself.

    Returns:
        tuple[TappedPass, Entry]: The features of one image, and an entry that reaches all taps: feature extraction
        where that is enough for the taps of backbones and necks.

    Raises:
        ValueError: No entry reaches all the taps, a tap selects nothing, or it is reached with a single image only.
    """
    entries: list[Entry] = ['extract_feat', 'tensor']
    if any(tap.place.path.partition('.')[0] not in _EXTRACTORS for tap in reader.taps):
        entries.reverse()  # heads do not run in the shorter entry; trying it first would cost a pass
    if sizes is SIZES:
        sizes = [*SIZES, *_stated_sizes(model)]
    reader.layouts = {}
    channels = image_channels(model) or 3
    cut_short: list[int] = []
    for size in sizes:
        inputs, data_samples = _dummy_batch(model, channels, size, size)
        failures = []
        for entry in entries:
            if entry == 'extract_feat' and not hasattr(model, entry):
                continue
            try:
                with eval_isolated(model):
                    before = random_states()
                    features = reader.probe(_runner(model, entry, inputs, data_samples))
                    reader.draws = random_states() != before
            except TapsNotReached as error:
                failures.append(error)
                continue
            if reader.is_cut_short and list(sizes) != [size]:
                # Norms refuse levels of one position, so of small images the last calls may lack.
                cut_short.append(size)
                break
            layouts = _layouts(features, _tall_features(model, reader, entry, channels, size), size)
            reader.layouts = _without_last_extra(model, reader, entry, inputs, features, layouts)
            maps = {text: [to_map(tensor, layout, (size, size))
                           for tensor, layout in zip(tensors, reader.layouts[text])]
                    for text, tensors in features.items()}
            reader.side = size
            return TappedPass(maps, reader, inputs, data_samples), entry
        if failures and all(failure.__cause__ is None for failure in failures):
            break  # a larger image would be of no help
    if cut_short:
        return probe(model, reader, cut_short[:1])
    # Feature extraction ends before the heads, so it says nothing of one that fails in the entire forward.
    told = next((failure for failure in failures if failure.__cause__ is not None), failures[-1])
    if isinstance(told.__cause__, NotImplementedError) and not hasattr(model, 'extract_feat'):
        inner = [f'{name!r} ({type(child).__name__})' for name, child in model.named_children()
                 if hasattr(child, 'extract_feat')]
        raise ValueError(f'{reader.owner}: {type(model).__name__} has no pass in which features could be read, neither '
                         'extract_feat() nor a forward without losses, as trackers, which take several frames. Take '
                         f'{" or ".join(inner) or "the network"} inside of it alone.') from told
    raise ValueError(f"{told} Only modules that run in 'extract_feat' or in \"forward(mode='tensor')\" "
                     'can be tapped; tools/list_taps.py lists them.') from told


def _stated_sizes(model: nn.Module) -> list[int]:
    """Sides that a network names as those of its images, as transformers do whose positions fit one size."""
    stated = [getattr(module, 'img_size', None) for module in model.modules()]
    sides = {side if isinstance(side, int) else side[0] for side in stated
             if isinstance(side, int) or (isinstance(side, (tuple, list)) and len(set(side)) == 1)}
    return sorted(side for side in sides if isinstance(side, int) and side not in SIZES)


def probe_larger(tapped: TappedPass) -> TappedPass:
    """The dry run once more, on images that are larger than the first that it tries.

    Args:
        tapped (TappedPass): As :func:`probe` gave it; its reader stays as it is.

    Returns:
        TappedPass: The same taps of the same model.

    Raises:
        ValueError: The model does not reach the taps on larger images.
    """
    reader = TapReader(tapped.model, [tap.text for tap in tapped.reader.taps], tapped.reader.owner)
    return probe(tapped.model, reader, SIZES[1:])[0]


def same_size(passes: Sequence[TappedPass]) -> list[TappedPass]:
    """Dry runs on images of one size, where networks that fail on small images, as deformable ones do, had larger ones.

    Args:
        passes (Sequence[TappedPass]): As :func:`probe` gave them.

    Returns:
        list[TappedPass]: Those that see the student's images at their own size have the largest of them; a network that
        takes no other size stays as it is.
    """
    sides = {index: tapped.inputs.shape[-1] for index, tapped in enumerate(passes) if tapped.scale == 1}
    found = list(passes)
    for index, side in sides.items():
        if side < max(sides.values()):
            model, reader = passes[index].model, passes[index].reader
            try:
                found[index] = probe(model, reader, [max(sides.values())])[0]
            except ValueError:
                found[index] = probe(model, reader, [side])[0]  # as what the reader has learned is forgotten by then
    return found


def _tall_features(model: nn.Module, reader: TapReader, entry: Entry, channels: int, side: int) -> Features:
    """The features of images twice as high as wide; none where the network takes one size only.

    Raises:
        ValueError: The network takes a batch of one such image only.
    """
    failure = None
    # Heads may take one image alone when they predict; the extraction of features is one for any number of them.
    for count in (2, 1) if entry == 'tensor' else (1,):
        inputs, data_samples = _dummy_batch(model, channels, 2 * side, side, count)
        try:
            with eval_isolated(model):
                features = reader.read_until_complete(_runner(model, entry, inputs, data_samples))
        except Exception as error:  # noqa: BLE001 - each network refuses a size in its own way
            failure = failure or error
            continue
        if failure is not None:
            raise ValueError(_one_image_only(model, reader, entry, channels, side, failure)) from failure
        return features
    return {}


def _one_image_only(model: nn.Module, reader: TapReader, entry: Entry, channels: int, side: int,
                    failure: Exception) -> str:
    """What to say of taps that are reached with a batch of one image only, and which are reached with more."""
    ran, _ = _survey(model, entry, *_dummy_batch(model, channels, side, side, 2))
    parts = [name for name in ran if '.' not in name]
    texts = ', '.join(repr(tap.text) for tap in reader.taps)
    where = f'; tap a place before, such as {parts[-1]!r}' if parts else ''
    reason = ': '.join(filter(None, (type(failure).__name__, str(failure))))
    return (f'{reader.owner}: it takes no batch of two images as far as {texts} when it predicts, as a teacher does '
            f'({reason}), only one image alone{where}.')


def _layouts(square: Features, tall: Features, side: int) -> dict[str, list[Layout]]:
    layouts = {}
    for text, tensors in square.items():
        others: Sequence[Optional[Tensor]] = tall.get(text, [])
        if len(others) != len(tensors):
            others = [None] * len(tensors)
        layouts[text] = [find_layout(tensor, other, side) for tensor, other in zip(tensors, others)]
    return layouts


def _without_last_extra(model: nn.Module, reader: TapReader, entry: Entry, inputs: Tensor, features: Features,
                        layouts: dict[str, list[Layout]]) -> dict[str, list[Layout]]:
    """The layouts, where extra tokens do stand before the others (see :func:`without_last_extra`)."""
    found = [layout for of_tap in layouts.values() for layout in of_tap if layout.extra_tokens]
    if not found:
        return layouts
    side = math.ceil(max(layout.stride or 1 for layout in found))
    images = inputs.repeat(2, 1, 1, 1)
    for image, corner in zip(images, (slice(None, side), slice(-side, None))):
        patch = image[:, corner, corner]
        patch.copy_(torch.where(torch.rand(patch.shape, generator=torch.Generator().manual_seed(0)) < 0.5, -2.0, 2.0))
    channels, height, width = inputs.shape[1:]
    _, data_samples = _dummy_batch(model, channels, height, width, count=2)
    try:
        with eval_isolated(model):
            changed = reader.read_until_complete(_runner(model, entry, images, data_samples))
    except Exception:  # noqa: BLE001 - each network refuses a batch in its own way
        return layouts
    return {text: [without_last_extra(layout, tensor, other) if layout.extra_tokens else layout
                   for layout, tensor, other in zip(of_tap, features[text], changed[text])]
            for text, of_tap in layouts.items()}


def probe_all(model: nn.Module, size: int) -> tuple[dict[str, tuple[list[Tensor], int]], Optional[Exception]]:
    """Finds every module that can be tapped.

    Args:
        model (nn.Module): An MM model; it is left as it was.
        size (int): Side of the square dry-run image.

    Returns:
        tuple[dict[str, tuple[list[Tensor], int]], Exception]: By module name, in the order in which they first end: the
        tensors that the last call gave, and the number of calls. And what the model failed with, if it did.
    """
    return _survey(model, 'tensor', *_dummy_batch(model, image_channels(model) or 3, size, size))


def _survey(model: nn.Module, entry: Entry, inputs: Tensor,
            data_samples: list[BaseDataElement]) -> tuple[dict[str, tuple[list[Tensor], int]], Optional[Exception]]:
    reader = TapReader(model, [name for name, _ in model.named_modules() if name], owner='model')
    with eval_isolated(model):
        return reader.survey(_runner(model, entry, inputs, data_samples))


def trace(model: nn.Module, size: int = SIZES[0]) -> list[Call]:
    """Traces a model on a small image (see :func:`mmfeatdistill.taps.tracing.trace`).

    Args:
        model (nn.Module): An MM model; it is left as it was.
        size (int): Side of the square dry-run image. Defaults to 64.

    Returns:
        list[Call]: Its calls, of the entire forward without losses.
    """
    inputs, data_samples = _dummy_batch(model, image_channels(model) or 3, size, size)
    with eval_isolated(model):
        return trace_run(model, _runner(model, 'tensor', inputs, data_samples))


def _runner(model: nn.Module, entry: Entry, inputs: Tensor, data_samples: Any) -> Callable[[], Any]:
    return lambda: run_entry(model, entry, inputs, data_samples)


def _dummy_batch(model: nn.Module, channels: int, height: int, width: int,
                 count: int = 1) -> tuple[Tensor, list[BaseDataElement]]:
    """A batch of equal images, and what detectors ask of them."""
    images = dummy_images(channels, height, width, next(model.parameters(), None))
    return images.repeat(count, 1, 1, 1), [unlabeled_sample(height, width) for _ in range(count)]
