"""What the images of a network are: found in its data preprocessor and in its pipeline, never assumed."""
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmfeatdistill.errors import did_you_mean
from mmfeatdistill.taps.isolation import random_state_kept
from mmfeatdistill.teacher.input_size import InputSize

_STATE_IT = ("State it: {key}=dict(mean=[...], std=[...], channel_order='rgb' or 'bgr'), with mean and std of pixels "
             'from 0 to 255, in that order.')

_REVERSING = ('_channel_conversion', 'channel_conversion', 'to_rgb')
"""mmengine's and mmdet's names, mmseg's of the original family, mmpretrain's."""

_FILE_ORDER = ('LoadSingleRSImageFromFile', 'LoadMultipleRSImageFromFile')
"""What gives the channels of a file in its own order, red first, where the other loaders give blue first."""

_RANDOM = ('RandomApply', 'RandomChoice', 'RandomSelect')
"""What runs a transform for some images only."""


class InputSpace(NamedTuple):
    """What a network takes: ``(pixels - mean) / std`` of pixels from 0 to 255 as images are read, perhaps reversed.

    Attributes:
        mean (Tensor): Per channel, shape (C,) or (1,), in the order after the reversal.
        std (Tensor): Likewise.
        reverses_channels (bool): Whether BGR becomes RGB, or the reverse.
        pad_value (float): What it pads with, after normalization.
        pad_size_divisor (int): What the sides of a padded batch are multiples of.
    """

    mean: Tensor
    std: Tensor
    reverses_channels: bool
    pad_value: float
    pad_size_divisor: int = 1

    @classmethod
    def of(cls, preprocessor: nn.Module) -> 'InputSpace':
        """Finds the input space of a data preprocessor: by what it says, and by what it makes of a few pixels.

        Args:
            preprocessor (nn.Module): Any, also one that wraps others, as mmdet's for several branches.

        Returns:
            InputSpace: Mean, std, channel order and padding.

        Raises:
            ValueError: It neither says what it does, nor can be run, nor is what it does a normalization.
        """
        said = _said(preprocessor)
        seen = _seen(preprocessor, len(said.mean) if said is not None else 3)
        if said is None and seen is None:
            raise ValueError(f'{type(preprocessor).__name__} has no mean and std, and fails on a plain image, so what '
                             'it makes of pixels is unknown.')
        if said is None or (seen is not None and not agree(said, seen)):
            assert seen is not None, 'one of the two is there'
            said = cls(*(value.float().double() for value in seen[:2]), *seen[2:])
        padding = _first(preprocessor, ('pad_val', 'pad_value'), 0)  # mmseg's, the others'
        return said._replace(pad_value=float(padding),
                             pad_size_divisor=int(_first(preprocessor, ('pad_size_divisor',), 1)))

    @classmethod
    def stated(cls, options: Mapping, padding: 'InputSpace') -> 'InputSpace':
        """The input space that a config states.

        Args:
            options (dict): ``mean``, ``std``, ``channel_order`` and, if need be, ``pad_value``.
            padding (InputSpace): Whose padding it has, where none is stated.

        Returns:
            InputSpace: As stated.

        Raises:
            ValueError: An option is missing, unknown, or has no sense.

        Examples:
            >>> raw = InputSpace(torch.zeros(1), torch.ones(1), False, 0.)
            >>> InputSpace.stated(dict(mean=[127.5], std=[127.5], channel_order='rgb'), raw).reverses_channels
            True
        """
        known = ('mean', 'std', 'channel_order', 'pad_value')
        for name in options:
            if name not in known:
                sizes = InputSize._fields
                raise ValueError(f'has no {name!r}{did_you_mean(str(name), (*known, *sizes))} It takes '
                                 f'{", ".join(known)}; {", ".join(sizes)} for a teacher.')
        mean, std, order = options.get('mean'), options.get('std'), options.get('channel_order')
        if order not in ('rgb', 'bgr'):
            raise ValueError(f"channel_order: expected 'rgb' or 'bgr', got {order!r}.")
        for name, values in dict(mean=mean, std=std).items():
            if not isinstance(values, Sequence) or not values or not all(isinstance(v, (int, float)) for v in values):
                raise ValueError(f'{name}: expected a list of numbers, one for each channel, got {values!r}.')
        assert mean is not None and std is not None, 'as checked'
        if len({len(mean), len(std)} - {1}) > 1 or min(std) <= 0:
            raise ValueError(f'std: expected as many positive numbers as mean has, got {std!r} for the mean {mean!r}.')
        # 0.485 is how torchvision says 123.675; MM pipelines have no pixels from 0 to 1.
        if max(map(abs, mean)) <= 1 and max(std) < 1:
            raise ValueError(f'mean: {mean!r} and std {std!r} are of pixels from 0 to 1; give them for pixels from 0 '
                             f'to 255: mean={[round(255 * v, 4) for v in mean]}, '
                             f'std={[round(255 * v, 4) for v in std]}.')
        return cls(torch.tensor(mean).double(), torch.tensor(std).double(), order == 'rgb',
                   float(options.get('pad_value', padding.pad_value)), padding.pad_size_divisor)

    def after(self, other: 'InputSpace') -> 'InputSpace':
        """What comes out if images of another space, as a pipeline has normalized them, are given to this one.

        Args:
            other (InputSpace): What comes first.

        Returns:
            InputSpace: Of both; with this one's padding.

        Examples:
            >>> half = InputSpace(torch.tensor([10.]), torch.tensor([2.]), False, 0.)
            >>> space = half.after(half)
            >>> space.mean.item(), space.std.item()
            (30.0, 4.0)
        """
        mean, std = (v.flip(0) if self.reverses_channels else v for v in (other.mean, other.std))
        return self._replace(mean=mean + self.mean * std, std=self.std * std,
                             reverses_channels=self.reverses_channels != other.reverses_channels)

    @property
    def is_raw(self) -> bool:
        """Whether pixels stay as they are read."""
        return not self.reverses_channels and bool((self.mean == 0).all() and (self.std == 1).all())

    @property
    def normalizes(self) -> bool:
        """Whether values change, and not only the order of channels."""
        return bool((self.mean != 0).any() or (self.std != 1).any())

    def pixels(self, images: Tensor) -> Tensor:
        """Undoes the normalization, and not the order of channels.

        Args:
            images (Tensor): Normalized, channels third from last.

        Returns:
            Tensor: The pixels from 0 to 255, in float32.
        """
        mean, std = (value.to(images.device, torch.float32).view(-1, 1, 1) for value in (self.mean, self.std))
        return images.float() * std + mean

    def __str__(self) -> str:
        """Mean, std and order, as in a config."""
        mean, std = ([round(v, 3) for v in values.tolist()] for values in (self.mean, self.std))
        return f'mean={mean}, std={std}, channel_order={"rgb" if self.reverses_channels else "bgr"!r}'


RAW = InputSpace(torch.zeros(1).double(), torch.ones(1).double(), False, 0.0)
"""Pixels as they are read: BGR, from 0 to 255."""


def how_to_state(key: str) -> str:
    """The end of a message on an input space that cannot be found.

    Args:
        key (str): Of the option that states it.

    Returns:
        str: A sentence.
    """
    return _STATE_IT.format(key=key)


def _said(preprocessor: nn.Module) -> Optional[InputSpace]:
    """What the first module says, of a preprocessor and those inside it, that has a mean; None if none has."""
    for module in preprocessor.modules():
        mean, std = getattr(module, 'mean', None), getattr(module, 'std', None)
        if isinstance(mean, Tensor) and isinstance(std, Tensor):
            return InputSpace(mean.detach().flatten().double().cpu(), std.detach().flatten().double().cpu(),
                              any(bool(getattr(module, name, False)) for name in _REVERSING), 0.0)
    return None


def _first(preprocessor: nn.Module, names: Sequence[str], default: float) -> Any:
    """The first number under one of these names, in a preprocessor or one inside it."""
    values = (getattr(module, name, None) for module in preprocessor.modules() for name in names)
    return next((value for value in values if isinstance(value, (int, float))), default)


def agree(said: InputSpace, seen: InputSpace) -> bool:
    """Whether two spaces are the same but for rounding.

    Args:
        said (InputSpace): Of as many channels as the other, or of one number for all.
        seen (InputSpace): The other.

    Returns:
        bool: Without regard to what they pad with.
    """
    return said.reverses_channels == seen.reverses_channels and all(
        torch.allclose(one.expand(len(other)), other, rtol=1e-3, atol=0.05)
        for one, other in zip(said[:2], seen[:2]))


@torch.no_grad()
def _seen(preprocessor: nn.Module, channels: int) -> Optional[InputSpace]:
    """What a preprocessor makes of a black image and of one with a single bright channel each.

    Returns:
        InputSpace: None if it cannot be run on them.

    Raises:
        ValueError: It gives no normalized images.
    """
    channels = max(channels, 3)
    images = torch.zeros(channels + 2, channels, 8, 8, dtype=torch.uint8)
    for channel in range(channels):
        images[channel, channel] = 200
    images[-1] = 100
    outputs = _run(preprocessor, images)
    if outputs is None:
        return None
    black, gray = outputs[channels], outputs[channels + 1]
    slopes = (outputs[:channels] - black) / 200  # (channel in, channel out)
    matrix = slopes if torch.count_nonzero(slopes.abs() > 1e-9) == channels else torch.zeros_like(slopes)
    straight, reversed_ = matrix.diagonal(), matrix.flip(0).diagonal()
    reverses = not bool(straight.all())
    scale = reversed_ if reverses else straight
    if not bool(scale.all()) or not torch.allclose(black + 100 * scale, gray, rtol=1e-3, atol=1e-3):
        raise ValueError(f'{type(preprocessor).__name__} does more than to normalize each channel and to reverse '
                         'their order.')
    return InputSpace(-black / scale, 1 / scale, reverses, 0.0)


def _run(preprocessor: nn.Module, images: Tensor) -> Optional[Tensor]:
    """What a preprocessor makes of images, a pixel of each, shape (N, C); None if it fails on all forms of a batch."""
    samples = [BaseDataElement(metainfo=dict(img_shape=(8, 8), ori_shape=(8, 8))) for _ in images]
    forms: list[Any] = [images, list(images), [images, images], [image[None] for image in images]]
    for inputs in forms:
        for data_samples in (None, samples):
            try:
                with random_state_kept():
                    outputs = preprocessor(dict(inputs=inputs, data_samples=data_samples), False)
            except Exception:  # noqa: BLE001, other libraries fail in any way on what they do not expect
                continue
            for tensor in _tensors(outputs):
                if tensor.is_floating_point() or tensor.dtype == torch.uint8:
                    pixels = tensor.reshape(-1, *tensor.shape[-3:])
                    if pixels.dim() == 4 and pixels.shape[:2] == images.shape[:2]:
                        return pixels[:, :, 0, 0].double().cpu()
    return None


def _tensors(value: Any) -> Iterator[Tensor]:
    """Images first: a batch is a dict with inputs before data samples."""
    if isinstance(value, Tensor):
        if value.dim() >= 4:
            yield value
        return
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def pipeline_space(dataset: Any) -> InputSpace:
    """What the pipeline of a dataset's config makes of images before they are packed.

    Args:
        dataset (dict): The ``dataset`` of a data loader: plain, or wrapped any number of times.

    Returns:
        InputSpace: :data:`RAW` where nothing normalizes.

    Raises:
        ValueError: Parts of the dataset are normalized differently, or some images only.

    Examples:
        >>> normalize = dict(type='Normalize', mean=[127.5], std=[127.5], to_rgb=True)
        >>> pipeline_space(dict(type='RepeatDataset', times=2, dataset=dict(pipeline=[normalize]))).std.item()
        127.5
    """
    if not isinstance(dataset, Mapping):
        return RAW
    inner = [pipeline_space(part) for part in _parts(dataset)]
    for other in inner[1:]:
        if str(other) != str(inner[0]):
            raise ValueError(f'its datasets are normalized differently: {inner[0]}, and {other}.')
    space = inner[0] if inner else RAW
    for transform in dataset.get('pipeline') or ():
        space = _after(transform, space)
    return space


def _parts(dataset: Mapping) -> Iterator[Any]:
    """The datasets that a dataset wraps."""
    for name in ('dataset', 'datasets'):
        held = dataset.get(name)
        yield from [held] if isinstance(held, Mapping) else held or ()


def _after(transform: Any, space: InputSpace) -> InputSpace:
    """The space after a transform of a pipeline."""
    if isinstance(transform, (list, tuple)):
        for step in transform:
            space = _after(step, space)
        return space
    if not isinstance(transform, Mapping):
        return space
    kind = transform.get('type')
    name = getattr(kind, '__name__', str(kind))
    last = name.rpartition('.')[2]
    if last in _FILE_ORDER or transform.get('imdecode_backend') == 'tifffile':
        return RAW._replace(reverses_channels=True)
    if last == 'torchvision/Normalize':
        return _normalization(transform, False).after(space)
    if last == 'torchvision/ConvertImageDtype' and space.std.max() != 1:
        return space  # from float to float it changes no values
    if last in ('torchvision/ToTensor', 'torchvision/ConvertImageDtype'):
        return InputSpace(torch.zeros(1).double(), torch.full((1,), 255.0).double(), False, 0.0).after(space)
    if last in ('ToPIL', 'NumpyToPIL', 'ToNumpy', 'PILToNumpy'):
        reverses = bool(transform.get('to_rgb', transform.get('to_bgr', False)))
        return RAW._replace(reverses_channels=reverses).after(space)
    if last == 'Albu':
        return _after_albumentations(transform.get('transforms') or [], space)
    if last == 'Normalize':
        return _normalization(transform, transform.get('to_rgb', True)).after(space)
    branches = [_after(value, space) for value in transform.values() if isinstance(value, (list, tuple, Mapping))]
    changed = [branch for branch in branches if str(branch) != str(space)]
    if not changed:
        return space
    if last in _RANDOM or any(str(branch) != str(changed[0]) for branch in changed):
        raise ValueError(f'{last} normalizes some images otherwise than others.')
    return changed[0]


_IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def _after_albumentations(transforms: Sequence[Mapping], space: InputSpace) -> InputSpace:
    """Albumentations has a normalization of its own: of pixels from 0 to 1, and without exchanging channels."""
    for transform in transforms:
        if str(transform.get('type')) == 'Normalize':
            scale = transform.get('max_pixel_value', 255.0)
            mean, std = (torch.as_tensor(transform.get(name, default)).double() * scale
                         for name, default in _IMAGENET.items())
            space = InputSpace(mean.flatten(), std.flatten(), False, 0.0).after(space)
        elif any(str(inner.get('type')) == 'Normalize' for inner in transform.get('transforms') or []):
            raise ValueError(f"{transform.get('type')} of albumentations normalizes some images otherwise than others.")
    return space


def _normalization(transform: Mapping, reverses: bool) -> InputSpace:
    mean, std = (torch.as_tensor(transform[name]).double().flatten() for name in ('mean', 'std'))
    return InputSpace(mean, std, reverses, 0.0)


def contradiction(images: Sequence[Tensor], space: InputSpace) -> Optional[str]:
    """What shows that images are not of the space that was concluded.

    Pixels are from 0 to 255, and whole numbers where no augmentation has changed that. What was normalized before
    lies close together, or half of it is negative.

    Args:
        images (Sequence[Tensor]): Normalized, without padding, shape (C, H, W) each.
        space (InputSpace): As concluded.

    Returns:
        str: The end of a sentence, with what may be the cause; None if nothing speaks against it.

    Examples:
        >>> pixels = torch.arange(256.).view(1, 16, 16)
        >>> contradiction([pixels], RAW)
        >>> contradiction([(pixels - 120) / 60], RAW)
        'from -2.0 to 2.2, which are no pixels from 0 to 255. Perhaps its pipeline normalizes too, out of sight here'
    """
    values = torch.cat([space.pixels(image).flatten()[::max(1, image.numel() // 100_000)] for image in images])
    if not values.numel() or not bool(values.isfinite().all()) or bool(values.max() == values.min()):
        return None  # nothing can be seen
    whole = ((values - values.round()).abs() < 0.02) & (values > -0.5) & (values < 255.5)
    if values.max() > 1.5 and whole.float().mean() > 0.9:
        return None
    low, high = torch.quantile(values[:1_000_000], values.new_tensor([0.01, 0.99])).tolist()
    # Photometric augmentation goes beyond 0 and 255, but makes no third of the pixels negative.
    if high - low < 8 or high > 600 or (low < -50 and (values < 0).float().mean() > 0.3):
        cause = ('Images of 16 bits have such values: divide mean and std of the student by 257 for what is stated here'
                 if low > -50 and high > 600 else 'Perhaps its pipeline normalizes too, out of sight here')
        return f'from {low:.1f} to {high:.1f}, which are no pixels from 0 to 255. {cause}'
    return None
