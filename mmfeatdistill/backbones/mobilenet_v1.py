"""The first MobileNet."""
from collections.abc import Sequence
from typing import Union

from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmfeatdistill.registry import MODELS

_NORM = dict(type='BN')


@MODELS.register_module()
class MobileNetV1(BaseModule):
    """MobileNet of width 1: depthwise separable convolutions without shortcuts.

    A ``stem`` of stride 2 is followed by four stages ``layer1`` to ``layer4`` with strides of 4, 8, 16 and 32 to the
    image, of 128, 256, 512 and 1024 channels and 2, 2, 6 and 2 blocks. A block is a depthwise and a pointwise
    convolution, each with BatchNorm and ReLU, so every stage ends after a ReLU.

    Source: MobileNets (arXiv 1704.04861), table 1.

    Args:
        out_indices (Sequence[int]): Which stages are returned, from 0 to 3. Defaults to ``(3, )``.
        init_cfg (dict | list[dict], optional): Initialization. Defaults to None: Kaiming's normal one by the outgoing
            connections.

    Raises:
        ValueError: There is no such stage.

    Examples:
        >>> backbone = MobileNetV1(out_indices=(0, 1, 2, 3))
        >>> [tuple(stage.shape) for stage in backbone(torch.zeros(2, 3, 64, 64))]
        [(2, 128, 16, 16), (2, 256, 8, 8), (2, 512, 4, 4), (2, 1024, 2, 2)]
    """

    def __init__(self, out_indices: Sequence[int] = (3, ), init_cfg: Union[dict, list, None] = None) -> None:
        super().__init__(init_cfg or [
            dict(type='Kaiming', layer='Conv2d', mode='fan_out', nonlinearity='relu'),
            dict(type='Constant', layer='BatchNorm2d', val=1)])
        if not out_indices or not set(out_indices) <= {0, 1, 2, 3}:
            raise ValueError(f'out_indices: there are the stages 0, 1, 2 and 3, got {out_indices!r}.')
        self.out_indices = out_indices
        self.stem = nn.Sequential(ConvModule(3, 32, 3, stride=2, padding=1, norm_cfg=_NORM), _block(32, 64))
        self.layer1 = _stage(64, 128, blocks=2)
        self.layer2 = _stage(128, 256, blocks=2)
        self.layer3 = _stage(256, 512, blocks=6)
        self.layer4 = _stage(512, 1024, blocks=2)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Computes the stages.

        Args:
            image (Tensor): Shape (N, 3, H, W).

        Returns:
            tuple[Tensor, ...]: Of ``out_indices``, shapes (N, 128, H/4, W/4), ..., (N, 1024, H/32, W/32).
        """
        stages, feature = [], self.stem(image)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            feature = layer(feature)
            stages.append(feature)
        return tuple(stages[index] for index in self.out_indices)


def _stage(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(_block(in_channels, channels, stride=2), *(_block(channels, channels)
                                                                    for _ in range(blocks - 1)))


def _block(in_channels: int, channels: int, stride: int = 1) -> DepthwiseSeparableConvModule:
    return DepthwiseSeparableConvModule(in_channels, channels, 3, stride=stride, padding=1, norm_cfg=_NORM)
