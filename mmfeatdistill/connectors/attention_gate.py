"""The gate of AttnFD: attention over channels and positions refines a feature before it is brought to another width."""
import torch
from torch import Tensor, nn

from mmfeatdistill.connectors.conv import ConvBN
from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.feature_map import FeatureShape


class BlockAttention(nn.Module):
    r"""Attention over the channels of a map, then over its positions (CBAM, arXiv 1807.06521).

    .. math:: y = x\, \sigma\bigl(M(\mathrm{mean}_{hw} x) + M(\mathrm{max}_{hw} x)\bigr), \qquad
        z = y\, \sigma\bigl(\mathrm{BN}(w * [\mathrm{max}_c y, \mathrm{mean}_c y])\bigr)

    with a perceptron M from C over C / 16 to C channels with a ReLU, and a 7x7 convolution w without bias. Layers
    as in the authors' code of AttnFD (arXiv 2403.05451), with PyTorch's initialization.

    Args:
        channels (int): Width of the map.

    Examples:
        >>> BlockAttention(32)(torch.zeros(2, 32, 4, 4)).shape
        torch.Size([2, 32, 4, 4])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 16, 1)
        self.channels = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(inplace=True), nn.Linear(inner, channels))
        self.positions = nn.Sequential(nn.Conv2d(2, 1, kernel_size=7, padding=3, bias=False),
                                       nn.BatchNorm2d(1, momentum=0.01))

    def forward(self, feature: Tensor) -> Tensor:
        """Refines a map of shape (N, C, H, W)."""
        strength = self.channels(feature.mean((2, 3))) + self.channels(feature.amax((2, 3)))
        feature = feature * strength.sigmoid()[:, :, None, None]
        pooled = torch.cat([feature.amax(1, keepdim=True), feature.mean(1, keepdim=True)], dim=1)
        return feature * self.positions(pooled).sigmoid()


@MODELS.register_module()
class AttentionGate(nn.Sequential):
    """A :class:`BlockAttention` at the student's width, and :class:`ConvBN` to the teacher's: AttnFD's connector.

    With the loss ``AttentionGuided`` this is AttnFD (arXiv 2403.05451) on a teacher that has no gates of its own.

    Args:
        student_shape (FeatureShape): Found by the dry run.
        teacher_shape (FeatureShape): Found by the dry run.

    Examples:
        >>> from mmfeatdistill.taps.feature_map import FeatureShape
        >>> AttentionGate(FeatureShape(8, 4, 4), FeatureShape(16, 4, 4))(torch.zeros(2, 8, 4, 4)).shape
        torch.Size([2, 16, 4, 4])
    """

    is_spatial = True

    def __init__(self, student_shape: FeatureShape, teacher_shape: FeatureShape) -> None:
        super().__init__(BlockAttention(student_shape.channels), ConvBN(student_shape, teacher_shape))
