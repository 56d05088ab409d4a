"""Bridges: a convolution and batch normalization from the space of one network to that of another."""
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, constant_init, kaiming_init
from torch import Tensor

from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.feature_map import FeatureShape


@MODELS.register_module()
class Bridge(BaseModule):
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

    def __init__(self, student_shape: FeatureShape, teacher_shape: FeatureShape, activated: bool = False) -> None:
        super().__init__()
        self.layer = ConvModule(
            student_shape.channels, teacher_shape.channels, padding=1, norm_cfg=dict(type='BN'),
            act_cfg=dict(type='LeakyReLU', negative_slope=0.1) if activated else None,
            **_convolution(student_shape, teacher_shape))
        self.init_weights()

    def init_weights(self) -> None:
        kaiming_init(self.layer.conv, mode='fan_out', nonlinearity='relu', distribution='normal')
        constant_init(self.layer.norm, 1)

    def forward(self, feature: Tensor) -> Tensor:
        return self.layer(feature)


def _convolution(source: FeatureShape, target: FeatureShape) -> dict:
    size, wanted = source[1:], target[1:]
    if size != wanted and size == (2 * wanted[0], 2 * wanted[1]):
        return dict(kernel_size=3, stride=2, bias=True)
    if size != wanted and (2 * size[0], 2 * size[1]) == wanted:
        return dict(kernel_size=4, stride=2, bias=True, conv_cfg=dict(type='deconv'))
    return dict(kernel_size=3, stride=1, bias=False)
