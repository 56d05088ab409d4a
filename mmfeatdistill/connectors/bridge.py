"""Bridges: a convolution and batch normalization from the space of one network to that of another."""
from mmengine.model import constant_init, kaiming_init
from torch import nn

from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.feature_map import FeatureShape


@MODELS.register_module()
class Bridge(nn.Sequential):
    r"""A 3x3 convolution and batch normalization, with a leaky ReLU where the other side is activated.

    .. math:: g(s) = \mathrm{LReLU}_{0.1}\bigl(\mathrm{BN}(W * s)\bigr)

    The bridges of FCFD (arXiv 2304.11832), as in the authors' code: the convolution has padding 1 and no bias; from a
    source of twice the size it has stride 2, and from one of half the size it is a transposed 4x4 convolution of stride
    2, both with a bias. It starts from Kaiming's normal distribution (fan-out). Other sizes are left to the resize
    rule.

    Args:
        student_shape (FeatureShape): Of the source; found by the dry run.
        teacher_shape (FeatureShape): Of the target; found by the dry run.
        activated (bool): Whether the target has been through a ReLU. Defaults to False.

    Examples:
        >>> from mmfeatdistill.taps.feature_map import FeatureShape
        >>> Bridge(FeatureShape(8, 16, 16), FeatureShape(16, 8, 8))(torch.zeros(2, 8, 16, 16)).shape
        torch.Size([2, 16, 8, 8])
    """

    is_spatial = True

    # Layers have numbers and no names, which paramwise_cfg of a student might mean.
    def __init__(self, student_shape: FeatureShape, teacher_shape: FeatureShape, activated: bool = False) -> None:
        super().__init__(_convolution(student_shape, teacher_shape), nn.BatchNorm2d(teacher_shape.channels),
                         *([nn.LeakyReLU(0.1, inplace=True)] if activated else []))
        self.init_weights()

    def init_weights(self) -> None:
        """Initializes as stated above."""
        kaiming_init(self[0], mode='fan_out', nonlinearity='relu', distribution='normal')
        constant_init(self[1], 1)


def _convolution(source: FeatureShape, target: FeatureShape) -> nn.Module:
    (channels, *size), (width, *wanted) = source, target
    if size != wanted and size == [2 * side for side in wanted]:
        return nn.Conv2d(channels, width, kernel_size=3, stride=2, padding=1)
    if size != wanted and [2 * side for side in size] == wanted:
        return nn.ConvTranspose2d(channels, width, kernel_size=4, stride=2, padding=1)
    return nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False)
