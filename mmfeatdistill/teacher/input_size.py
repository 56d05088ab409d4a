"""At which size a teacher sees the student's images, and where its features then lie over them."""
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfeatdistill.taps.layout import Layout

_SMALLEST_PATCH = 8
"""Side in pixels. Smaller ones are the stems of networks with several stages, such as Swin, which pad by themselves."""


class InputSize(NamedTuple):
    r"""What becomes of the size of a batch for the teacher alone.

    .. math:: H_t = m \cdot \max\bigl(1, [s H / m]\bigr)

    with the scale s and the multiple m, rounded to the nearest one where the batch is resized, and up where it is
    padded at the right and at the bottom. A batch stays one tensor, and nothing happens where the size fits.

    Attributes:
        scale (float): Pixels of the teacher for one of the student's.
        multiple_of (int): What the sides are multiples of.
        size (tuple[int, int], optional): Height and width for all batches, in place of the two.
        fit (str): ``'resize'`` or ``'pad'``: by what sides become multiples. Resized images are covered by the
            features from edge to edge; padded ones keep their proportions, and the features over the padding are cut
            off.

    Examples:
        >>> InputSize(multiple_of=14).of((250, 333)), InputSize(0.5, 16, fit='pad').of((250, 333))
        ((252, 336), (128, 176))
    """

    scale: float = 1.0
    multiple_of: int = 1
    size: Optional[tuple[int, int]] = None
    fit: Literal['resize', 'pad'] = 'resize'

    @classmethod
    def stated(cls, options: Mapping[str, Any], model: nn.Module) -> 'InputSize':
        """What a config states, and otherwise what the network tells: its patches, or the only size that it takes.

        Args:
            options (dict): ``scale``, ``multiple_of``, ``size`` and ``fit``, each of them optional.
            model (nn.Module): The network.

        Returns:
            InputSize: As stated, or found.

        Raises:
            ValueError: An option has no sense.

        Examples:
            >>> InputSize.stated({}, nn.Sequential(nn.Conv2d(3, 8, kernel_size=14, stride=14))).multiple_of
            14
        """
        scale, multiple, size = options.get('scale', 1.0), options.get('multiple_of'), options.get('size')
        fit = options.get('fit', 'resize')
        if not _is_number(scale) or not 0 < scale < float('inf'):
            raise ValueError(f'scale: expected a positive number, such as 0.5, got {scale!r}.')
        if multiple is not None and not _is_side(multiple):
            raise ValueError(f'multiple_of: expected a positive integer, such as 14, got {multiple!r}.')
        if fit not in ('resize', 'pad'):
            raise ValueError(f"fit: expected 'resize' or 'pad', got {fit!r}.")
        only = getattr(model, 'image_size', None)
        if size is None and _is_side(only):
            size = (only, only)
        if size is None:
            return cls(float(scale), multiple or patch_side(model), None, fit)
        if not isinstance(size, Sequence) or len(size) != 2 or not all(map(_is_side, size)):
            raise ValueError(f'size: expected height and width, such as (224, 224), got {size!r}.')
        if set(options) - {'size'}:
            reason = 'is stated' if 'size' in options else f'is {tuple(size)}, as the network takes no other'
            raise ValueError(f'{sorted(set(options) - {"size"})[0]}: has no effect, as the size {reason}; remove it.')
        return cls(size=(size[0], size[1]))

    @property
    def sides(self) -> Sequence[int]:
        """Of the square images of a dry run, if only some will do; otherwise empty."""
        return [self.size[0]] if self.size is not None and self.size[0] == self.size[1] else []

    @property
    def pixels(self) -> Optional[float]:
        """Pixels of the teacher for one of the student's, as far as that is the same for all batches."""
        return self.scale if self.size is None else None

    @property
    def changes(self) -> bool:
        """Whether some batches have another size for the teacher."""
        return self != InputSize(fit=self.fit)

    def of(self, size: Sequence[int]) -> tuple[int, int]:
        """The size of the teacher's images.

        Args:
            size (Sequence[int]): Height and width of the student's.

        Returns:
            tuple[int, int]: Height and width.
        """
        if self.size is not None:
            return self.size
        multiple = self.multiple_of
        if self.fit == 'pad':
            height, width = (-(-side // multiple) * multiple for side in self._unpadded(size))
        else:
            height, width = (multiple * max(1, round(self.scale * side / multiple)) for side in size)
        return height, width

    def apply(self, images: Tensor, pad_value: float) -> Tensor:
        """Resizes a batch, or pads it.

        Args:
            images (Tensor): Of the teacher's input space, shape (N, C, H, W).
            pad_value (float): What it is padded with.

        Returns:
            Tensor: The same tensor where it fits.
        """
        given, wanted = tuple(images.shape[-2:]), self.of(images.shape[-2:])
        if given == wanted:
            return images
        target = self._unpadded(given) if self.fit == 'pad' and self.size is None else wanted
        if given != target:
            images = F.interpolate(images.float(), target, mode='bilinear', align_corners=False,
                                   antialias=True).to(images.dtype)
        return F.pad(images, (0, wanted[1] - target[1], 0, wanted[0] - target[0]), value=pad_value)

    def uncovered(self, feature: Tensor, layout: Layout, given: Sequence[int]) -> Tensor:
        """Cuts off of a feature map what lies over the padding, so that it covers the student's image.

        Args:
            feature (Tensor): Of the teacher, shape (N, C, H, W) if it is a map.
            layout (Layout): Of the tapped tensor.
            given (Sequence[int]): Height and width of the student's batch.

        Returns:
            Tensor: The same tensor where nothing was padded. Where the image ends inside of a position, positions are
            interpolated.
        """
        padded, target = self.of(given), self._unpadded(given)
        if self.fit == 'resize' or self.size is not None or padded == target or layout.kind in ('flat', 'plain'):
            return feature
        down, across = (own / whole for own, whole in zip(target, padded))
        rows, columns = (max(1, round(part * side)) for part, side in zip((down, across), feature.shape[-2:]))
        theta = torch.tensor([[across, 0, across - 1], [0, down, down - 1]], device=feature.device)
        grid = F.affine_grid(theta.expand(len(feature), 2, 3), [len(feature), 1, rows, columns], align_corners=False)
        return F.grid_sample(feature.float(), grid, padding_mode='border', align_corners=False).to(feature.dtype)

    def _unpadded(self, size: Sequence[int]) -> tuple[int, int]:
        height, width = (max(1, round(self.scale * side)) for side in size)
        return height, width


def split_options(stated: Optional[Mapping]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divides what a config says of a teacher's input.

    Args:
        stated (dict, optional): Its ``input``.

    Returns:
        tuple[dict, dict]: What the pixels are, and at which size.

    Examples:
        >>> split_options(dict(scale=0.5, channel_order='rgb'))
        ({'channel_order': 'rgb'}, {'scale': 0.5})
    """
    options = {name: value for name, value in (stated or {}).items() if name != '_scope_'}
    size = {name: options.pop(name) for name in InputSize._fields if name in options}
    return options, size


def patch_side(model: nn.Module) -> int:
    """Side of the patches that a transformer cuts images into: its first convolution reads each pixel once.

    Args:
        model (nn.Module): Any network.

    Returns:
        int: 1 where the first convolution is another.

    Examples:
        >>> patch_side(nn.Conv2d(3, 8, 16, 16)), patch_side(nn.Conv2d(3, 8, 7, 2, 3))
        (16, 1)
    """
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None or first.kernel_size != first.stride or first.kernel_size[0] != first.kernel_size[1]:
        return 1
    return first.kernel_size[0] if first.kernel_size[0] >= _SMALLEST_PATCH else 1


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
