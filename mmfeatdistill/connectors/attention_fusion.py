"""The fusion of ReviewKD: a level of a student, and what the deeper levels came to."""
from typing import Optional

import torch
import torch.nn.functional as F
from mmengine.model import caffe2_xavier_init
from torch import Tensor, nn


class AttentionFusion(nn.Module):
    r"""Mixes a level with the deeper ones, position by position, and brings the mixture to the teacher's width.

    .. math:: x = \mathrm{BN}(W_1 s), \qquad f = a_0 \odot x + a_1 \odot r, \qquad
        a = \mathrm{sigmoid}(W_a [x; r] + b), \qquad y = \mathrm{BN}(W_2 * f)

    with r, what the deeper level has handed on, resized to x by the nearest positions; the deepest level has none, and
    f = x. y is compared with the teacher's level, f is handed on. Where the teacher's size differs, f is resized to it
    first, likewise. :math:`W_1` and :math:`W_a` are 1x1, :math:`W_2` is a 3x3 convolution; those in front of a
    normalization have no bias.

    The attention based fusion (ABF) of ReviewKD (arXiv 2104.09044); layers and initialization (Kaiming's uniform
    distribution with a = 1, of the attention PyTorch's default) are those of the authors' code. It is no connector, as
    levels depend on each other (see :class:`mmfeatdistill.objectives.ReviewKD`).

    Args:
        channels_in (int): Width of the student's level.
        mid_channels (int): Width of what is handed on.
        channels_out (int): Width of the teacher's level.
        fuses (bool): Whether there is a deeper level.

    Examples:
        >>> fusion = AttentionFusion(8, 4, 16, fuses=True)
        >>> output, fused = fusion(torch.rand(2, 8, 6, 6), torch.rand(2, 4, 3, 3), (6, 6))
        >>> output.shape, fused.shape
        (torch.Size([2, 16, 6, 6]), torch.Size([2, 4, 6, 6]))
    """

    def __init__(self, channels_in: int, mid_channels: int, channels_out: int, fuses: bool) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(channels_in, mid_channels, kernel_size=1, bias=False),
                                    nn.BatchNorm2d(mid_channels))
        self.attention = nn.Conv2d(2 * mid_channels, 2, kernel_size=1) if fuses else None
        self.expand = nn.Sequential(nn.Conv2d(mid_channels, channels_out, kernel_size=3, padding=1, bias=False),
                                    nn.BatchNorm2d(channels_out))
        for conv in (self.reduce[0], self.expand[0]):
            caffe2_xavier_init(conv)  # which is Kaiming's with a = 1

    def forward(self, feature: Tensor, deeper: Optional[Tensor], size: torch.Size) -> tuple[Tensor, Tensor]:
        """Fuses a level with the deeper ones.

        Args:
            feature (Tensor): The student's level, shape (N, C, H, W).
            deeper (Tensor, optional): What the fusion of the next deeper level handed on.
            size (torch.Size): Height and width of the teacher's level.

        Returns:
            tuple[Tensor, Tensor]: What is compared with the teacher's level, and what is handed on.
        """
        fused = self.reduce(feature)
        if self.attention is not None and deeper is not None:
            deeper = F.interpolate(deeper, size=fused.shape[2:], mode='nearest')
            own, others = self.attention(torch.cat([fused, deeper], dim=1)).sigmoid().split(1, dim=1)
            fused = own * fused + others * deeper
        if fused.shape[2:] != size:
            fused = F.interpolate(fused, size=size, mode='nearest')
        return self.expand(fused), fused
