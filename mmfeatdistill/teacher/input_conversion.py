"""The teacher's own normalization, from what the student's data preprocessor gives."""
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, Optional

from torch import Tensor, nn

from mmfeatdistill.teacher.input_space import InputSpace, contradiction

__all__ = ['InputConversion', 'InputSpace', 'disagreement']

_PADDING_KEYS = {'batch_input_shape', 'padding_size'}
"""What mmdet's and mmseg's data preprocessors note in the samples of a batch that they padded."""


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
        for image, (height, width) in zip(converted, _image_sizes(inputs, data_samples or (), self.pad_size_divisor)):
            image[:, height:] = self.pad_value
            image[:, :, width:] = self.pad_value
        return converted


def disagreement(inputs: Tensor, data_samples: Optional[Sequence[Any]], space: InputSpace) -> Optional[str]:
    """What shows that a batch is not of the input space that was concluded; for a look at the first one.

    Args:
        inputs (Tensor): As the student's data preprocessor gives it, shape (N, C, H, W).
        data_samples (Sequence, optional): Their ``img_shape`` tells where the padding begins.
        space (InputSpace): As concluded.

    Returns:
        str: What its pixels would be, the end of a sentence; None if nothing speaks against it.

    Examples:
        >>> space = InputSpace(torch.tensor([100.]), torch.tensor([50.]), False, 0.)
        >>> disagreement((torch.linspace(0, 255, 64).view(1, 1, 8, 8) - 100) / 50, None, space)
    """
    sizes = _image_sizes(inputs, data_samples or (), space.pad_size_divisor)
    images = [image[:, :height, :width] for image, (height, width) in zip(inputs, sizes)] or list(inputs)
    return contradiction(images, space)


def _image_sizes(inputs: Tensor, data_samples: Sequence[Any], divisor: int) -> list[tuple[int, int]]:
    """Heights and widths without padding; none where they cannot be trusted.

    Some pipelines leave an outdated ``img_shape``. It is right where the preprocessor has noted that it
    padded, or where padding such images to the largest would give a batch of this size.
    """
    if isinstance(data_samples, Mapping):  # as mmyolo collates them: one dict for the batch
        noted = data_samples.get('img_metas') or []
    else:
        noted = [getattr(sample, 'metainfo', {}) for sample in data_samples]
    sizes = [tuple(metainfo.get('img_shape', ()))[:2] for metainfo in noted]
    # Of groups of images, as mmdet's ReID has them, a sample notes a list of sizes.
    if not sizes or not all(len(size) == 2 and all(isinstance(side, Integral) for side in size) for size in sizes):
        return []
    batch = tuple(-(-max(sides) // divisor) * divisor for sides in zip(*sizes))
    if batch == tuple(inputs.shape[-2:]) or all(_PADDING_KEYS & set(metainfo) for metainfo in noted):
        return sizes
    return []
