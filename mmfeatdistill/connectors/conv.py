"""Linear connectors: a 1x1 convolution, with or without batch normalization."""
import math

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, constant_init, normal_init
from torch import Tensor, nn

from mmfeatdistill.registry import MODELS
from mmfeatdistill.taps.feature_map import FeatureShape


@MODELS.register_module()
class Conv1x1(nn.Conv2d):
    """A 1x1 convolution with bias from the student's to the teacher's width (FitNets, MGD and others).

    It has PyTorch's default initialization.

    Args:
        student_shape (FeatureShape): Found by the dry run.
        teacher_shape (FeatureShape): Found by the dry run.

    Examples:
        >>> from mmfeatdistill.taps.feature_map import FeatureShape
        >>> Conv1x1(FeatureShape(8, 4, 4), FeatureShape(16, 4, 4))(torch.zeros(2, 8, 4, 4)).shape
        torch.Size([2, 16, 4, 4])
    """

    def __init__(self, student_shape: FeatureShape, teacher_shape: FeatureShape) -> None:
        super().__init__(student_shape.channels, teacher_shape.channels, kernel_size=1)


@MODELS.register_module()
class ConvBN(BaseModule):
    """A 1x1 convolution without bias and batch normalization: the student transform of OFD.

    The convolution starts from N(0, 2 / C_teacher), the normalization from weight 1 and bias 0, as in
    the authors' code (arXiv 1904.01866, section 3.2).

    Args:
        student_shape (FeatureShape): Found by the dry run.
        teacher_shape (FeatureShape): Found by the dry run.

    Examples:
        >>> from mmfeatdistill.taps.feature_map import FeatureShape
        >>> ConvBN(FeatureShape(8, 4, 4), FeatureShape(16, 4, 4))(torch.zeros(2, 8, 4, 4)).shape
        torch.Size([2, 16, 4, 4])
    """

    def __init__(self, student_shape: FeatureShape, teacher_shape: FeatureShape) -> None:
        super().__init__()
        self.layer = ConvModule(student_shape.channels, teacher_shape.channels, kernel_size=1,
                                norm_cfg=dict(type='BN'), act_cfg=None)
        self.init_weights()

    def init_weights(self) -> None:
        conv = self.layer.conv
        normal_init(conv, std=math.sqrt(2 / conv.out_channels))
        constant_init(self.layer.norm, 1)

    def forward(self, feature: Tensor) -> Tensor:
        return self.layer(feature)
