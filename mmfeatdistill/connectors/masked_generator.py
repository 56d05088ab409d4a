"""The masked generation of MGD."""
import torch
from torch import Tensor, nn

from mmfeatdistill.connectors.conv import aligned
from mmfeatdistill.losses.masked_generative import masked
from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.feature_map import FeatureShape


@MODELS.register_module()
class MaskedGenerator(nn.Module):
    r"""Generates the teacher's feature from a student's of which a random part is hidden.

    .. math:: g(s) = W_2 * \mathrm{ReLU}(W_1 * (m \odot A s) + b_1) + b_2,
        \qquad m = 0 \text{ where } u > 1 - \lambda \text{, else } 1, \quad u \sim U(0, 1)

    with 3x3 convolutions of the teacher's width, and a 1x1 convolution A where the student has another width. The
    noise u is drawn anew for every batch; in eval mode nothing is hidden. With the loss ``SquaredError`` this is
    masked generative distillation (arXiv 2205.01529), :func:`mmfeatdistill.losses.masked_generative`. Layers, their
    order, and PyTorch's default initialization are those of the authors' code.

    Args:
        student_shape (FeatureShape): Found by the dry run.
        teacher_shape (FeatureShape): Found by the dry run.
        mask_ratio (float): The share that is hidden, from 0 to 1. The authors use 0.65 for RetinaNet, 0.45 for Faster
            R-CNN, 0.75 for segmentation and 0.15 for classification.
        hide (str): ``'positions'``, all channels of a position at once, as the authors do for dense prediction, or
            ``'channels'``, an entire channel, as they do for classification. Defaults to ``'positions'``.

    Raises:
        ValueError: ``mask_ratio`` is no share, or ``hide`` is neither.

    Examples:
        >>> from mmfeatdistill.taps.feature_map import FeatureShape
        >>> generator = MaskedGenerator(FeatureShape(8, 4, 4), FeatureShape(16, 4, 4), mask_ratio=0.45)
        >>> generator(torch.zeros(2, 8, 4, 4)).shape
        torch.Size([2, 16, 4, 4])
    """

    is_spatial = True

    def __init__(self, student_shape: FeatureShape, teacher_shape: FeatureShape, mask_ratio: float,
                 hide: str = 'positions') -> None:
        super().__init__()
        if hide not in ('positions', 'channels'):
            raise ValueError(f"hide: expected 'positions' or 'channels', got {hide!r}.")
        if not 0 <= mask_ratio <= 1:
            raise ValueError(f'mask_ratio: must be from 0 to 1, got {mask_ratio}.')
        self.mask_ratio = mask_ratio
        self.hide = hide
        width = teacher_shape.channels
        self.align = aligned(student_shape, teacher_shape)
        self.generation = nn.Sequential(
            nn.Conv2d(width, width, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, kernel_size=3, padding=1))

    def forward(self, feature: Tensor) -> Tensor:
        feature = self.align(feature)
        if self.training:
            feature = masked(feature, noise=self.draw_noise(feature), mask_ratio=self.mask_ratio)
        return self.generation(feature)

    def draw_noise(self, feature: Tensor) -> Tensor:
        """Draws what decides which part is hidden.

        Args:
            feature (Tensor): Shape (N, C, H, W).

        Returns:
            Tensor: Uniform on [0, 1), shape (N, 1, H, W) or (N, C, 1, 1).
        """
        n, c, h, w = feature.shape
        return torch.rand((n, 1, h, w) if self.hide == 'positions' else (n, c, 1, 1), device=feature.device)
