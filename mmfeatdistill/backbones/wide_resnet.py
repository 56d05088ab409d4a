"""Wide residual networks for small images."""
from collections.abc import Sequence
from typing import Union

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmfeatdistill.registry import MODELS


@MODELS.register_module()
class WideResNet(BaseModule):
    """WRN-d-k of images of 32x32: residual blocks that normalize and activate before they convolve.

    A 3x3 convolution ``conv1`` to 16 channels is followed by three stages ``layer1`` to ``layer3`` of 16k, 32k and 64k
    channels and strides 1, 2 and 2, each of (d - 4) / 6 blocks of two 3x3 convolutions. A stage ends in a sum that is
    neither normalized nor activated. The first block of the next stage begins with both, and so do ``bn1`` and ``relu``
    after the last stage. What goes into the activation after stages 1, 2 and 3 is therefore the output of
    ``layer2.0.bn1``, ``layer3.0.bn1`` and ``bn1``.

    Source: Wide Residual Networks (arXiv 1605.07146), without its dropout.

    Args:
        depth (int): Number d of convolutions, 6n + 4, shortcuts apart.
        widen_factor (int): Factor k of the widths.
        out_indices (Sequence[int]): Which stages are returned: 0 and 1 as the sums that they end in, 2 after ``bn1``
            and ``relu``. Defaults to ``(2, )``.
        init_cfg (dict | list[dict], optional): Initialization. Defaults to None: Kaiming's normal one by the outgoing
            connections, as in the authors' code.

    Raises:
        ValueError: There is no network of this depth or width, or no such stage.

    Examples:
        >>> backbone = WideResNet(depth=16, widen_factor=2, out_indices=(0, 1, 2))
        >>> [tuple(stage.shape) for stage in backbone(torch.zeros(1, 3, 32, 32))]
        [(1, 32, 32, 32), (1, 64, 16, 16), (1, 128, 8, 8)]
    """

    def __init__(self, depth: int, widen_factor: int, out_indices: Sequence[int] = (2, ),
                 init_cfg: Union[dict, list, None] = None) -> None:
        super().__init__(init_cfg or [
            dict(type='Kaiming', layer='Conv2d', mode='fan_out', nonlinearity='relu'),
            dict(type='Constant', layer='BatchNorm2d', val=1)])
        blocks, remainder = divmod(depth - 4, 6)
        if blocks < 1 or remainder:
            raise ValueError(f'depth: expected 6n + 4, such as 16, 28 or 40, got {depth!r}.')
        if widen_factor < 1:
            raise ValueError(f'widen_factor: expected a positive number, got {widen_factor!r}.')
        if not out_indices or not set(out_indices) <= {0, 1, 2}:
            raise ValueError(f'out_indices: there are the stages 0, 1 and 2, got {out_indices!r}.')
        self.out_indices = out_indices
        channels = [16 * widen_factor, 32 * widen_factor, 64 * widen_factor]
        self.conv1 = _conv3x3(3, 16)
        self.layer1 = _stage(16, channels[0], blocks, stride=1)
        self.layer2 = _stage(channels[0], channels[1], blocks, stride=2)
        self.layer3 = _stage(channels[1], channels[2], blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(channels[2])
        self.relu = nn.ReLU()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Computes the stages.

        Args:
            image (Tensor): Shape (N, 3, H, W).

        Returns:
            tuple[Tensor, ...]: Of ``out_indices``, shapes (N, 16k, H, W), (N, 32k, H/2, W/2) and (N, 64k, H/4, W/4).
        """
        first = self.layer1(self.conv1(image))
        second = self.layer2(first)
        stages = first, second, self.relu(self.bn1(self.layer3(second)))
        return tuple(stages[index] for index in self.out_indices)


class _Block(nn.Module):
    """Two convolutions, each after a normalization and an activation, and a sum."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        # Not in place: what the normalizations give is tapped, and no backward pass keeps it otherwise.
        self.relu1 = nn.ReLU()
        self.conv1 = _conv3x3(in_channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv2 = _conv3x3(channels, channels)
        self.shortcut = None
        if in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, feature: Tensor) -> Tensor:
        active = self.relu1(self.bn1(feature))
        residual = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        # A shortcut that changes the width shares the first activation.
        return residual + (feature if self.shortcut is None else self.shortcut(active))


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_Block(in_channels, channels, stride),
                         *(_Block(channels, channels, stride=1) for _ in range(blocks - 1)))


def _conv3x3(in_channels: int, channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
