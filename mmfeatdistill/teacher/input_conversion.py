"""The teacher's own normalization, from what the student's data preprocessor gives."""
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor, nn

_PADDING_KEYS = {'batch_input_shape', 'padding_size'}
"""What mmdet's and mmseg's data preprocessors note in the samples of a batch that they padded."""


class InputSpace(NamedTuple):
    """What a data preprocessor makes of raw pixels: ``(pixels - mean) / std``, perhaps reversed.

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
        """Reads the input space of any of the MM libraries' data preprocessors.

        Args:
            preprocessor (nn.Module): mmengine's, mmdet's, mmseg's or mmpretrain's; one that does not
                normalize leaves pixels as they are.

        Returns:
            InputSpace: Mean, std, channel order and padding.
        """
        mean, std = getattr(preprocessor, 'mean', None), getattr(preprocessor, 'std', None)
        # mmengine's and mmdet's names, mmseg's of the original family, mmpretrain's.
        reverses = any(getattr(preprocessor, name, False)
                       for name in ('_channel_conversion', 'channel_conversion', 'to_rgb'))
        padding = getattr(preprocessor, 'pad_val', getattr(preprocessor, 'pad_value', 0))  # mmseg's, the others'
        return cls(mean=torch.zeros(1) if mean is None else mean.detach().flatten().double().cpu(),
                   std=torch.ones(1) if std is None else std.detach().flatten().double().cpu(),
                   reverses_channels=reverses,
                   pad_value=float(padding),
                   pad_size_divisor=getattr(preprocessor, 'pad_size_divisor', 1))


class InputConversion(nn.Module):
    r"""Converts a batch from the student's input space to the teacher's.

    .. math:: x_t = \frac{P(x_s \sigma_s + \mu_s) - \mu_t}{\sigma_t}

    with P the reversal of the channels where the two orders differ. Padding is set to the teacher's
    own value. Where both spaces agree the batch is handed on as it is, without a copy.

    Args:
        student (InputSpace): Of the batch.
        teacher (InputSpace): Wanted.

    Examples:
        >>> space = InputSpace(torch.tensor([100.]), torch.tensor([50.]), False, 0.)
        >>> raw = InputSpace(torch.zeros(1), torch.ones(1), False, 0.)
        >>> InputConversion(space, raw)(torch.ones(1, 1, 1, 1)).item()
        150.0
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, student: InputSpace, teacher: InputSpace) -> None:
        super().__init__()
        self.reverse = student.reverses_channels != teacher.reverses_channels
        self.pad_value = teacher.pad_value
        self.pad_size_divisor = student.pad_size_divisor
        mean, std = (value.flip(0) if self.reverse else value for value in (student.mean, student.std))
        scale, shift = std / teacher.std, (mean - teacher.mean) / teacher.std
        self.is_identity = (not self.reverse and bool((scale == 1).all() and (shift == 0).all())
                            and student.pad_value == teacher.pad_value)
        self.register_buffer('scale', scale.float().view(-1, 1, 1), persistent=False)
        self.register_buffer('shift', shift.float().view(-1, 1, 1), persistent=False)

    def forward(self, inputs: Tensor, data_samples: Optional[Sequence[Any]] = None) -> Tensor:
        """Converts a batch.

        Args:
            inputs (Tensor): In the student's input space, shape (N, C, H, W).
            data_samples (Sequence, optional): Their ``img_shape`` tells where the padding begins.

        Returns:
            Tensor: In the teacher's input space, the same shape.
        """
        if self.is_identity:
            return inputs
        converted = (inputs.flip(1) if self.reverse else inputs) * self.scale + self.shift
        for image, (height, width) in zip(converted, self._image_sizes(inputs, data_samples or ())):
            image[:, height:] = self.pad_value
            image[:, :, width:] = self.pad_value
        return converted

    def _image_sizes(self, inputs: Tensor, data_samples: Sequence[Any]) -> list[tuple[int, int]]:
        """Heights and widths without padding; none where they cannot be trusted.

        Some pipelines leave an outdated ``img_shape``. It is right where the preprocessor has noted that it
        padded, or where padding such images to the largest would give a batch of this size.
        """
        noted = [sample.metainfo for sample in data_samples]
        if not noted or not all('img_shape' in metainfo for metainfo in noted):
            return []
        sizes = [metainfo['img_shape'][:2] for metainfo in noted]
        batch = tuple(-(-max(sides) // self.pad_size_divisor) * self.pad_size_divisor for sides in zip(*sizes))
        if batch == tuple(inputs.shape[-2:]) or all(_PADDING_KEYS & set(metainfo) for metainfo in noted):
            return sizes
        return []
